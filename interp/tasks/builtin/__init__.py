"""The built-in tasks, one module each; `interp.tasks` is where to take them from."""
