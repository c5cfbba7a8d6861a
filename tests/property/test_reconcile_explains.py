"""Whatever people did and whatever failed: once the federation has come to rest, a comparison explains each difference, and changes nothing."""

from __future__ import annotations

from federation.reconcile import Reconciler, parents
from tests.property.profiles import machine_settings
from tests.property.test_four_levels import FourLevels
from tests.property.world import DATASET


class Explains(FourLevels):
    """The four levels, compared at the end."""

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self._compare()
        super().teardown()

    def _compare(self) -> None:
        reconciler = Reconciler(self.nodes.federation, tell_keys=True, actor="test")
        for upper in parents(self.nodes.federation, DATASET):
            for one in reconciler.parent(DATASET, upper):
                assert one.error is None, (one.link, str(one.error), one.left)
                assert one.repaired == 0, (one.link, one.found, one.left)


TestReconciliationExplainsWhatIsLeft = Explains.TestCase
TestReconciliationExplainsWhatIsLeft.settings = machine_settings(5, 10)
