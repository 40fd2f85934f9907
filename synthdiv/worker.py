"""The program of every job: `python -m synthdiv.worker JOB.json`."""

import sys

from synthdiv.engine.job_worker import main
from synthdiv.views.track.watcher import TrackWatcher

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], TrackWatcher))
