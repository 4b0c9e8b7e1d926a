"""Makes the discovery that a source asks for."""

from collections.abc import Sequence

from marsproxy.config import Discovery as Settings
from marsproxy.discovery.dns import DnsDiscovery, DnsResolver
from marsproxy.discovery.endpoint import Discovery, DiscoveryEvents
from marsproxy.discovery.kubernetes import KubernetesDiscovery, cluster_of
from marsproxy.discovery.source import Source


def discoveries_of(sources: Sequence[Source], settings: Settings, events: DiscoveryEvents) -> list[Discovery]:
    """One for each that is no server itself."""
    found: list[Discovery] = []
    for source in sources:
        match source.way:
            case "dns" | "srv":
                resolver = DnsResolver(settings.dns_address())
                found.append(DnsDiscovery(source, resolver, events, interval_s=settings.interval_s))
            case "k8s":
                cluster = cluster_of(settings.kubernetes_url, settings.kubernetes_dir)
                found.append(KubernetesDiscovery(source, cluster, events))
            case "static":
                pass
    return found
