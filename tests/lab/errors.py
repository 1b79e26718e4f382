"""An answer that refuses, in AWS's terms. The protocol writes it in its own shape."""


class AwsError(Exception):
    def __init__(self, code, message, status=400):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class Invalid(AwsError):
    """A request that the service's model doesn't allow: also kept as a violation, so that tests can fail on it."""
