"""Long work on a run that goes on where it was stopped: what the commands call."""
