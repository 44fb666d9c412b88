"""What strict nbval leaves out of its comparison, wherever pytest is started."""


def pytest_collectstart(collector):
    """Leave out stderr: progress and the line on figures shown as committed depend on the machine."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
