"""What a submission begins with on the cluster: a shell script that finds the Python that the cluster's Ray runs on.

PATH's python there may be any. Whoever started the script is a process of that Ray, and has its library in memory: the
library's path says which environment it belongs to. An environment that Ray made for this job itself (`--install`)
comes first; it looks through to the cluster's.
"""

from __future__ import annotations

from headway.jobs import told

FILE = "headway-begin.sh"
"""In the working folder of the Ray job."""
MODULE = "headway.jobs.there.main"

_SCRIPT = r"""
p=$PPID
so=
while [ "${p:-0}" -gt 0 ]; do
  so=$(grep -m1 -o '/.*/ray/_raylet\.so' "/proc/$p/maps" 2>/dev/null) && break
  so=
  p=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$p/status" 2>/dev/null)
done
made=
case "$VIRTUAL_ENV" in */runtime_resources/*) made="$VIRTUAL_ENV/bin/python" ;; esac
has_ray='import importlib.util as u, sys; sys.exit(getattr(u.find_spec("ray"), "origin", None) is None)'
for python in "$made" "${so:+${so%/lib*/python*}/bin/python3}" "$(readlink "/proc/${p:-0}/exe" 2>/dev/null)"; do
  if [ -x "$python" ] && "$python" -c "$has_ray" 2>/dev/null; then
    export PYTHONSAFEPATH=1
    exec "$python" -u -m MODULE
  fi
done
printf '%s\n' 'REFUSED'
exit 2
"""


def line() -> str:
    """The entry point of the Ray job."""
    return f"sh {FILE}"


def script() -> str:
    """The content of FILE. Where no such Python is found it says so in a told line, and ends with exit code 2."""
    fact = "the Python that the cluster's Ray runs on was not found"
    reason = "no process above the job's has Ray's library in memory, or its environment has no bin/python3"
    remedy = "Start Ray there from a virtual or a Conda environment, or from an image with Python in it."
    said = told.line("refused", fact=fact, reason=reason, remedy=remedy, traceback="", exit_code=2).rstrip("\n")
    return _SCRIPT.lstrip("\n").replace("MODULE", MODULE).replace("REFUSED", said.replace("'", "'\\''"))
