"""An analysis over tables: 1,461 days of weather, and a table of the seasons.

python examples/data_analysis/example.py            without a key: the plan has the queries
python examples/data_analysis/example.py --goal     with a model, which writes them
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from planloom import local, planner

HERE = Path(__file__).parent
WEATHER = Path(planner.__file__).parent / "library" / "data" / "seattle-weather.csv"
GOAL = (
    "Two tables: seattle-weather.csv (date, precipitation, temp_max, temp_min, wind, weather; one "
    "row for each day) and seasons.csv (month, season). How do the seasons differ in rain and "
    "warmth, and did the summers get warmer? Answer with figures."
)


def main(arguments: list[str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for table in (WEATHER, HERE / "seasons.csv"):
            shutil.copy(table, folder)
        if "--goal" in arguments:
            return local.run_sync(goal=GOAL, workspace=folder, budget={"usd": 0.5}, on_event=print)
        return local.run_sync(HERE / "plan.yaml", workspace=folder)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]).answer, indent=2, ensure_ascii=False))
