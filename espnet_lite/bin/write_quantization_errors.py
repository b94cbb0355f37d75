"""Draw a page's tables and heat map from error analyses, the JSONs of analyze_quantization."""

import os
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Write the figure and the page, and return 0."""
    args = parser(__doc__)
    args.add_argument(
        "--analyses", required=True, nargs="+", type=Path, help="JSONs, in this order"
    )
    args.add_argument("--page", required=True, type=Path, help="Markdown with the marks")
    args.add_argument("--figure", required=True, type=Path, help="PNG to write")
    options = args.parse_args(argv)

    from espnet_lite.files import read_lines, write_text
    from espnet_lite.score.quantization_errors import draw_heat_map, read_analyses, with_analyses

    analyses = read_analyses(options.analyses)
    page = "\n".join(read_lines(options.page)) + "\n"
    figure = os.path.relpath(options.figure, options.page.parent)
    text = with_analyses(page, analyses, Path(figure).as_posix(), where=options.page)
    draw_heat_map(analyses, options.figure)
    write_text(options.page, text)
    print(f"{options.page}, {options.figure}: {len(analyses)} analyses")
    return 0


if __name__ == "__main__":
    sys.exit(main())
