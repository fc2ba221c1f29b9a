"""What evaluation raises."""


class EvaluationError(RuntimeError):
    """A candidate cannot be evaluated: it, the benchmark or the live model is missing or not what it should be."""
