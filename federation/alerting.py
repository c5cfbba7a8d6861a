"""Telling people: which alarms stand, which channels hear of them now, and what is over.

Each channel is told on its own: one that does not answer is told by the next check, and does not keep the others from hearing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from federation.alarms import Alarm, held_alarm, link_alarms, overdue_alarms, settled_since
from federation.alert_text import Message, alarm_message, clear_message, trial_message
from federation.channels import send
from federation.config import Config
from federation.config_alerts import Channel
from federation.errors import FedsyncError
from federation.federation import Federation
from federation.ledger.alerts import AlertLog, Standing
from federation.ledger.store import Ledger, utc_now
from federation.secrets import ConnectionUri, from_environment

WATCHED = ("held", "failed", "overdue")
"""Kinds that a check sees all of, so that what it does not see is over."""


@dataclass
class Told:
    """What a round of telling did. `sent`, `cleared`: channel → subjects told; `swallowed`: how many were due to nobody;
    `errors`: channel → why it could not be told."""

    standing: int = 0
    sent: dict[str, list[str]] = field(default_factory=dict)
    cleared: dict[str, list[str]] = field(default_factory=dict)
    swallowed: int = 0
    errors: dict[str, FedsyncError] = field(default_factory=dict)

    def check(self) -> Told:
        """Raise the first error, if a channel could not be told."""
        for error in self.errors.values():
            raise error
        return self


class Teller:
    """Tells the channels of a federation. `connection_uri`: resolves references to Airflow connections."""

    def __init__(self, config: Config, ledger: Ledger, connection_uri: ConnectionUri = from_environment) -> None:
        self._spec = config.spec.alerts
        self._name = config.spec.label or config.spec.name
        self._log = AlertLog(ledger)
        self._ledger = ledger
        self._connection_uri = connection_uri

    def tell(self, alarms: Sequence[Alarm], links: Mapping[str, str] | None = None, told: Told | None = None) -> Told:
        """Tell each channel what it is to hear now. `links`: subject → a page to look at."""
        told = told or Told()
        told.standing += len(alarms)
        once = {alarm.subject for alarm in alarms if not alarm.lasting}
        for name, channel in self._spec.channels.items():
            mine = [alarm for alarm in alarms if wants(channel, alarm.kind, alarm.dataset)]
            before = self._log.claim(name, mine, timedelta(minutes=self._spec.every))
            told.swallowed += len(mine) - len(before)
            due = [alarm for alarm in mine if alarm.subject in before]
            if due:
                message = alarm_message(self._name, due, before, self._ledger.clock(), links or {})
                if self._send(name, channel, message, told, partial(self._log.give_back, name, before)):
                    self._log.confirm(name, before)
                    told.sent.setdefault(name, []).extend(sorted(before))
            self._log.end(name, once & set(before))
        return told

    def end(self, subjects: Collection[str], told: Told | None = None) -> Told:
        """These are over: tell the channels that heard of them."""
        told = told or Told()
        for name, channel in self._spec.channels.items() if subjects else ():
            over = self._log.end(name, subjects)
            if not over:
                continue
            message = clear_message(self._name, over, self._ledger.clock())
            names = sorted(stood.subject for stood in over)
            if self._send(name, channel, message, told, partial(self._log.reopen, name, names)):
                told.cleared.setdefault(name, []).extend(names)
        return told

    def prune(self) -> None:
        """Forget what is long over."""
        self._log.prune()

    def standing(self, dataset: str | None = None) -> list[Standing]:
        """What is not over, as each channel knows it."""
        return self._log.standing(dataset)

    def _send(self, name: str, channel: Channel, message: Message, told: Told, undo: Callable[[], None]) -> bool:
        try:
            send(name, channel, message, self._ledger.clock(), self._connection_uri)
        except FedsyncError as error:
            undo()
            told.errors[name] = error
            return False
        return True


def wants(channel: Channel, kind: str, dataset: str | None) -> bool:
    """Whether a channel is to hear of this."""
    right = not channel.datasets or dataset is None or dataset in channel.datasets
    return right and (not channel.kinds or kind in channel.kinds)


def check(
    federation: Federation, dataset: str, connection_uri: ConnectionUri = from_environment, ended: Collection[str] = ()
) -> Told:
    """Look at the links and corrections of a dataset, tell what needs a person, and what is over. `ended`: over by other evidence."""
    if not federation.config.spec.alerts.channels:
        return Told()
    config, services = federation.config, federation.services
    contract, now = config.dataset(dataset), services.now()
    states = services.links.all(dataset)
    alarms = link_alarms(config.all_links(dataset), states, now)
    alarms += overdue_alarms(config, contract, services.corrections.active(dataset), now.date())
    teller = Teller(config, services.ledger, connection_uri)
    seen = {alarm.subject for alarm in alarms}
    over = set(ended)
    for stood in teller.standing(dataset):
        upper = stood.subject.rpartition("/")[2]
        if stood.kind in WATCHED and stood.subject not in seen:
            over.add(stood.subject)
        # A run's subject ends in the region that it was for (see the DAGs' own alerts).
        run = stood.kind in ("run", "deadline") and upper in config.tree
        if run and settled_since(config.links(dataset, upper), states, stood.seen):
            over.add(stood.subject)
    told = teller.end(over, teller.tell(alarms))
    teller.prune()
    return told


def held_below(federation: Federation, dataset: str, upper: str) -> tuple[list[Alarm], int]:
    """The alarms of a parent's held links, and how many of its links failed: why a run for it may have failed."""
    services = federation.services
    links = federation.config.links(dataset, upper)
    states = services.links.states([link.id for link in links])
    known = [(link, states[link.id]) for link in links if link.id in states]
    held = [held_alarm(link, state) for link, state in known if state.state == "held" and not state.released]
    return held, sum(state.state == "failed" for _, state in known)


def try_channel(config: Config, name: str, connection_uri: ConnectionUri = from_environment) -> None:
    """Send a test message. Raises FedsyncError if there is no such channel, and what sending raises."""
    channels = config.spec.alerts.channels
    if name not in channels:
        raise FedsyncError(
            f"there is no channel {name}",
            f"没有通道 {name}",
            todo=f"取值 / one of: {', '.join(channels) or 'alerts.channels 为空 / is empty'}",
        )
    now = utc_now()
    send(name, channels[name], trial_message(config.spec.label or config.spec.name, name, now), now, connection_uri)


def tell_directly(config: Config, alarms: Sequence[Alarm], connection_uri: ConnectionUri = from_environment) -> Told:
    """Tell without a ledger, which is what is broken: each time, to every channel that wants it."""
    told, now = Told(standing=len(alarms)), utc_now()
    for name, channel in config.spec.alerts.channels.items():
        mine = [alarm for alarm in alarms if wants(channel, alarm.kind, alarm.dataset)]
        if not mine:
            continue
        message = alarm_message(config.spec.label or config.spec.name, mine, {}, now, {})
        try:
            send(name, channel, message, now, connection_uri)
        except FedsyncError as error:
            told.errors[name] = error
        else:
            told.sent[name] = [alarm.subject for alarm in mine]
    return told
