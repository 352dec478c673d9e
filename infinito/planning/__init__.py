"""How many runs an answer takes, and the promise that is made before they are trained."""
