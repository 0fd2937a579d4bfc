"""Make the dashboards that are committed, from `panels/`:

pip install -e '.[dashboards]'
python -m dashboards.generate
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dashboards.description import all_of_them
from dashboards.to_perses import perses

HERE = Path(__file__).parent


def text(tree: dict[str, Any]) -> str:
    """As it is committed."""
    return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    from dashboards.to_grafana import grafana

    for tool, make in (("grafana", grafana), ("perses", perses)):
        for dashboard in all_of_them():
            path = HERE / tool / f"{dashboard.name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text(make(dashboard)), encoding="utf-8")


if __name__ == "__main__":
    main()
