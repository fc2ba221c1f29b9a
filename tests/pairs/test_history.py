"""The log as records, and names followed through renames in both directions."""

from embed_assets.pairs.history import History, read_history
from embed_assets.snippets.git_source import GitSource
from tests.pairs.written_history import DAY, START, WrittenHistory

LONG = "".join(f"line {number}\n" for number in range(20))


def history_of(written: WrittenHistory, max_commits: int = 100) -> History:
    source: GitSource = written.source()
    with source:
        return read_history(source, max_commits=max_commits)


def test_commits_come_newest_first_with_what_they_touched(written: WrittenHistory) -> None:
    written.commit("Begin", {"a.py": LONG, "b.py": "x = 1\n"})
    written.commit("Change, add and delete: größe", {"a.py": LONG + "more\n", "c d.py": "y\n", "b.py": None})
    newest, oldest = history_of(written).commits
    assert (newest.subject, oldest.subject) == ("Change, add and delete: größe", "Begin")
    assert oldest.parents == () and newest.parents == (oldest.commit_id,)
    assert newest.committed_at == START + 2 * DAY
    assert newest.author == "Ann <ann@example.org>"
    by_path = {change.path: change for change in newest.files}
    assert by_path["a.py"].blob_before and by_path["a.py"].blob_after
    assert by_path["c d.py"].blob_before == "" and by_path["b.py"].blob_after == ""
    assert {change.path for change in oldest.files} == {"a.py", "b.py"}


def test_a_merge_lists_no_files_and_the_number_of_commits_is_bounded(written: WrittenHistory) -> None:
    base = written.commit("Begin", {"a.py": LONG})
    side = written.commit("Side", {"b.py": "1\n"}, parents=(base,))
    main = written.commit("Main", {"c.py": "1\n"}, parents=(base,))
    written.commit("Merge branch 'side'", {"b.py": "1\n"}, parents=(main, side))
    merge = history_of(written).commits[0]
    assert len(merge.parents) == 2 and merge.files == ()
    assert len(history_of(written, max_commits=2).commits) == 2


def test_a_subject_may_hold_anything(written: WrittenHistory) -> None:
    written.commit("Begin", {"a.py": LONG})
    written.commit("Odd \x01 \x02 :100644 subject", {"a.py": LONG + "more\n"})
    commits = history_of(written).commits
    assert len(commits) == 2
    assert [change.path for change in commits[0].files] == ["a.py"]


def test_paths_follow_renames_forwards_and_backwards(written: WrittenHistory) -> None:
    written.commit("Begin", {"a.py": LONG})
    written.commit("Change", {"a.py": LONG + "1\n"})
    written.commit("Move", {"a.py": None, "src/b.py": LONG + "1\n"})
    written.commit("Move again", {"src/b.py": None, "lib/c.py": LONG + "1\n"})
    written.commit("Change again", {"lib/c.py": LONG + "2\n"})
    history = history_of(written)
    commits = {commit.subject: commit for commit in history.commits}
    at = {subject: commit.committed_at for subject, commit in commits.items()}

    def path_at(path: str, of: str, when: str) -> str:
        return history.path_at(path, of=commits[of].commit_id, at=at[when])

    assert path_at("a.py", "Change", "Change again") == "lib/c.py"
    assert path_at("a.py", "Change", "Move") == "src/b.py"
    assert path_at("a.py", "Change", "Change") == "a.py"
    assert path_at("lib/c.py", "Change again", "Begin") == "a.py"
    assert path_at("lib/c.py", "Change again", "Move") == "src/b.py"
    assert path_at("src/b.py", "Move", "Begin") == "a.py"
    assert path_at("other.py", "Change again", "Begin") == "other.py"
