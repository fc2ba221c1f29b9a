"""What training raises."""


class TrainingError(RuntimeError):
    """Training cannot start or cannot go on: bad data, a wrong target, a loss that is no number."""
