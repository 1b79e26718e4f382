"""The lab's time. It runs with the real one and can be put forward, which wakes whoever sleeps on it."""
import threading
import time


class Closed(Exception):
    """The lab ends; whatever was under way stops here."""


class Clock:
    def __init__(self, speed=1.0):
        self.speed = speed                     # how many seconds of a state's usual length pass in one second
        self._ahead = 0.0
        self._closed = False
        self._moved = threading.Condition()

    def now(self):
        return time.time() + self._ahead

    def advance(self, seconds):
        with self._moved:
            self._ahead += seconds
            self._moved.notify_all()

    def sleep(self, seconds):
        """Lets a state last: seconds at speed 1."""
        end = self.now() + seconds / self.speed
        with self._moved:
            while not self._closed and self.now() < end:
                self._moved.wait(end - self.now())
            if self._closed:
                raise Closed()

    def close(self):
        with self._moved:
            self._closed = True
            self._moved.notify_all()
