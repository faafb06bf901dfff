"""What is said and done about missing Debian packages."""

import pytest
from localcluster import packages
from localcluster.errors import ClusterError
from localcluster.progress import Progress

ABSENT = {"sh-package": "sh", "etcd-server": "no-such-program", "runc": "/no/such/file"}


def test_only_what_is_not_there_is_missing():
    assert packages.missing(ABSENT) == ["etcd-server", "runc"]


def test_without_root_the_error_says_what_to_install():
    with pytest.raises(ClusterError) as caught:
        packages.ensure(ABSENT, Progress(), is_root=False)
    command = "sudo apt-get install --no-install-recommends etcd-server runc"
    assert command in str(caught.value)


def test_nothing_missing_is_nothing_done():
    packages.ensure({"sh-package": "sh"}, Progress(), is_root=False)
