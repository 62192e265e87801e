"""The watchdog: it names the stage that hangs and where, and is silent where work goes on."""

import time

from retinanet_jax.runtime.watchdog import Watchdog

SECOND = 1 / 60


def hang_here() -> None:
    time.sleep(1.0)


def test_a_hang_is_named_with_all_stacks(tmp_path, capsys):
    with Watchdog(0.2 * SECOND, tmp_path) as watchdog:
        watchdog.beat("data")
        hang_here()
    text = (tmp_path / "watchdog.txt").read_text()
    assert "minutes in the stage data" in text and "in hang_here" in text
    # At .2, .4 and .8 seconds, and not at every look.
    assert 2 <= text.count("no progress") <= 3


def test_no_word_where_work_goes_on_or_where_it_is_off(tmp_path):
    with Watchdog(0.4 * SECOND, tmp_path) as watchdog, Watchdog(0.0, tmp_path):
        for _ in range(20):
            watchdog.beat("step")
            time.sleep(0.05)
    assert not (tmp_path / "watchdog.txt").exists()


def test_a_disk_that_cannot_be_written_does_not_end_the_watch(tmp_path):
    with Watchdog(0.1 * SECOND, tmp_path / "nowhere") as watchdog:
        time.sleep(0.5)
        assert watchdog._thread.is_alive()
