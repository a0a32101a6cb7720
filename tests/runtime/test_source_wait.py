import pytest

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.camera import Reconnection
from edgeseg.runtime.source_wait import open_when_there


class Camera:
    """One that is there from the time `boots_at_s` on, and the clock by which it is waited for."""

    def __init__(self, boots_at_s: float) -> None:
        self.boots_at_s, self.now_s = boots_at_s, 0.0
        self.waits_s: list[float] = []

    def open(self) -> "Camera":
        if self.now_s < self.boots_at_s:
            raise SourceError("camera 0 cannot be opened | is it connected?")
        return self

    def wait(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        self.now_s += wait_s

    def opened(self, **limits: float) -> object:
        return open_when_there(self.open, limits=Reconnection(**limits), wait=self.wait, clock=lambda: self.now_s)


def test_a_camera_that_boots_later_is_waited_for_with_waits_that_double(caplog):
    camera = Camera(boots_at_s=100.0)
    assert camera.opened(most_wait_s=30.0) is camera
    assert camera.waits_s == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert caplog.messages[0] == "camera 0 cannot be opened | waiting for it, next try in 0.5 s"
    told = {"event": "camera_awaited", "reason": "camera 0 cannot be opened", "next_try_s": 0.5}
    assert caplog.records[0].fields == told


@pytest.mark.parametrize(("give_up_s", "waits_s"), [(0.0, []), (5.0, [0.5, 1.0, 2.0, 1.5])])
def test_the_last_error_is_raised_when_it_is_given_up(give_up_s, waits_s):
    camera = Camera(boots_at_s=100.0)
    with pytest.raises(SourceError, match="is it connected"):
        camera.opened(give_up_s=give_up_s)
    assert camera.waits_s == waits_s


def test_a_camera_that_is_there_in_time_is_not_given_up():
    assert Camera(boots_at_s=5.0).opened(give_up_s=5.0)


def test_a_mistake_is_not_waited_for():
    def mistaken() -> None:
        raise InputError("a stream has the size it has")

    with pytest.raises(InputError):
        open_when_there(mistaken, wait=lambda wait_s: pytest.fail("waited"))


def test_who_wants_to_know_is_told_why():
    camera, reasons = Camera(boots_at_s=1.0), []
    open_when_there(camera.open, on_wait=reasons.append, wait=camera.wait, clock=lambda: camera.now_s)
    assert reasons == ["camera 0 cannot be opened"] * 2
