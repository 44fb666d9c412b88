"""What strict nbval leaves out of its comparison, wherever pytest is started."""


def pytest_collectstart(collector):
    """Leave out stderr: progress, and which figures are shown as committed, differ."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
