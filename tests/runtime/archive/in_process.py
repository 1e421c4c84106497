"""Archives that are tagged in the test's own process, which spares starting one for each."""

from __future__ import annotations

import pytest

from taidpt.runtime.archive import job as job_module
from taidpt.runtime.archive.clip_tagger import ClipTagger
from taidpt.runtime.archive.job import run_archive
from taidpt.runtime.archive.request import ArchiveJob

__all__ = ["archive_here"]


def archive_here(job: ArchiveJob) -> None:
    """`run_archive` with a tagger of this process in place of a worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "ClipWorker", lambda job, environment: ClipTagger(job))
        run_archive(job)
