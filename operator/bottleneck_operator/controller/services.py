"""What the loops of all policies share."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..kube import Kube
from ..observe.pods import PodStore
from ..observe.prometheus_feeds import Feeds
from ..observe.streams import Streams
from ..report.events import Recorder
from ..report.reports import ReportStore
from .claims import Claims
from .pools import Pools


@dataclass(slots=True)
class Services:
    """One of each in a process."""

    kube: Kube
    recorder: Recorder
    pods: PodStore = field(default_factory=PodStore)
    reports: ReportStore = field(default_factory=ReportStore)
    streams: Streams = field(default_factory=Streams)
    claims: Claims = field(default_factory=Claims)
    pools: Pools = field(default_factory=Pools)
    prometheus: Feeds = field(init=False)

    def __post_init__(self) -> None:
        self.prometheus = Feeds(self.kube)
