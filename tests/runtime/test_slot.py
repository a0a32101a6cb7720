import threading
import time

from edgeseg.runtime.slot import LatestSlot


def test_slot_waits_for_room_when_told_to():
    stop = threading.Event()
    slot: LatestSlot[int] = LatestSlot(stop)
    slot.put(1)
    threading.Timer(0.05, slot.take).start()
    assert slot.put(2, wait=True)
    assert (slot.take(), slot.dropped) == (2, 0)


def test_slot_counts_what_is_left_when_it_was_stopped():
    stop = threading.Event()
    slot: LatestSlot[int] = LatestSlot(stop)
    slot.put(1)
    assert slot.left == 0
    threading.Timer(0.05, stop.set).start()
    assert not slot.put(2, wait=True)
    assert (slot.left, slot.dropped) == (2, 0)


def test_slot_drops_what_the_new_item_makes_needless():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=9)
    for item in (1, 2, 3):
        slot.put(item)
    slot.put(4, replaces=lambda held: held != 2)
    assert (slot.take(), slot.take(), slot.dropped) == (2, 4, 2)


def test_slot_notes_an_item_before_the_next_one_can_be_put():
    slot: LatestSlot[int] = LatestSlot(threading.Event())
    slot.put(1)
    thread = threading.Thread(target=slot.put, args=(2,))

    def note(item: int) -> None:
        thread.start()
        time.sleep(0.05)
        assert thread.is_alive()

    assert slot.take(note) == 1
    thread.join()
    assert (slot.take(), slot.dropped) == (2, 0)


def test_slot_gives_what_is_left_after_it_was_closed():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=2)
    slot.put(1)
    slot.close()
    assert (slot.take(), slot.take()) == (1, None)


def test_slot_drops_what_is_not_accepted_and_waits_for_the_next_one():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=9)
    for item in (1, 2, 3):
        slot.put(item)
    noted = []
    assert slot.take(noted.append, accepts=lambda item: item > 2) == 3
    assert (noted, slot.dropped) == ([3], 2)
