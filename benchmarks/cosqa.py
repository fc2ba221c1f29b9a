"""CoSQA's development queries as a set in BEIR's format, to see whether training on one's own code forgets what people ask.

    python benchmarks/cosqa.py DATA FOLDER

DATA is `data/search` of the authors' release (Huang et al., ACL 2021, "CoSQA: 20,000+ Web Queries for Code Search"):
`cosqa-retrieval-dev-500.json` and `code_idx_map.txt`. 500 web queries ask for one of 6,267 Python functions; the test
queries are never read. Functions are read with the product's extractor and written as it embeds them: docs removed,
a header of scope and name (there is no path).
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from embed_assets.files import write_text  # noqa: E402
from embed_assets.records import embedded_text  # noqa: E402
from embed_assets.snippets.extract import extract  # noqa: E402


def document_text(code: str) -> str:
    """As the product embeds it; code in which it finds no function stays as it is."""
    found = [definition for definition in extract(code.encode(), "python") if definition.kind in ("function", "method")]
    if not found:
        return code
    return embedded_text(path="", scope=found[0].scope, name=found[0].name, code=found[0].code)


def write_set(data: Path, folder: Path) -> tuple[int, int]:
    """Writes corpus.jsonl, queries.jsonl and qrels.tsv; returns how many functions and queries."""
    codes: dict[str, int] = json.loads((data / "code_idx_map.txt").read_text(encoding="utf-8"))
    asked = json.loads((data / "cosqa-retrieval-dev-500.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    corpus = [{"_id": f"c{number}", "text": document_text(code)} for code, number in codes.items()]
    queries = [{"_id": query["idx"], "text": query["doc"]} for query in asked]
    judged = ["query-id\tcorpus-id\tscore", *(f"{query['idx']}\tc{query['retrieval_idx']}\t1" for query in asked)]
    write_text(folder / "corpus.jsonl", "".join(json.dumps(line) + "\n" for line in corpus))
    write_text(folder / "queries.jsonl", "".join(json.dumps(line) + "\n" for line in queries))
    write_text(folder / "qrels.tsv", "\n".join(judged) + "\n")
    return len(corpus), len(queries)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print("cosqa.py needs the authors' data/search and a folder to write: see its first lines; nothing was written")
        raise SystemExit(0)
    print("{} functions, {} queries".format(*write_set(Path(sys.argv[1]), Path(sys.argv[2]))))
