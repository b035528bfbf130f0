#!/usr/bin/env python3
"""Checks the rules that keep the workspace readable. Prints each violation as `file:line: rule: what`, exits 1.

    python3 scripts/check_structure.py              # the repository that holds this script
    python3 scripts/check_structure.py --self-test  # plants one violation of each rule and expects it
    python3 scripts/check_structure.py --edges FILE # the files that FILE imports from

The rules:

up      A crate depends only on crates below it (`CRATES`), in Cargo.toml and in its code.
circle  The files of a crate import from each other without a circle. File A imports from B where A's code
        names something that B defines: by `use`, by a path (`crate::x::y`, `super::y`, `child::y`), through a
        glob, or through names that A's module re-exports. A `mod child;` and a `pub use child::X` that the file
        itself does not use are no imports. What is compiled for tests alone is exempt.
long    A .rs file has at most 600 lines, or says `// Long because: <reason>` in its first lines.
unsafe  `unsafe` stands only in rag-cpu and in the files that map memory (`MAPS`). Tests and benches are exempt.
family  Only a generator's own folder, the enums beside it, fixtures and checkpoint names say which family of
        generators it is; another file says `// Names a family because: <reason>` in its first lines.

It needs Python 3.11 or later and nothing else. It reads Rust by its tokens and knows nothing of types: a
method that stands in another file than its type does not count as an import.
"""

import argparse
import re
import sys
import tempfile
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# From the lowest to the highest.
CRATES = ["rag-cpu", "rag-core", "rag-retrieve", "rag-generate", "rag-train", "burn-rag"]
MAPS = ["rag-core/src/checkpoint/mapped.rs", "rag-retrieve/src/knowledge/files.rs"]
MOST_LINES = 600
# Lines of a file that may hold a reason.
FIRST_LINES = 20
# Segments; what is longer goes round in aliases of other crates.
LONGEST_PATH = 20
GENERATOR = "rag-generate/src/generator"

TOKEN = re.compile(
    r"""
    (?P<skip>\s+|//[^\n]*)
    |(?P<comment>/\*)
    |(?P<string>(?:b|c)?"(?:\\.|[^"\\])*")
    |(?P<raw>(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes))
    |(?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])')
    |(?P<lifetime>'[A-Za-z_]\w*)
    |(?P<name>(?:r\#)?[A-Za-z_]\w*)
    |(?P<number>\d[\w]*(?:\.\d[\w]*)?)
    |(?P<path>::)
    |(?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
CLOSING = {"(": ")", "[": "]", "{": "}"}
ITEMS = {"struct", "enum", "union", "trait", "fn", "const", "static", "type", "macro_rules"}
# What may stand between an item's attributes and its keyword.
QUALIFIERS = {"pub", "unsafe", "async", "extern", "default"}


@dataclass
class Token:
    text: str
    line: int
    kind: str


def tokens_of(source):
    """The tokens of Rust source, without comments."""
    tokens, at, line = [], 0, 1
    while at < len(source):
        match = TOKEN.match(source, at)
        kind, end = match.lastgroup, match.end()
        if kind == "hashes":
            kind = "raw"
        if kind == "comment":
            depth = 1
            while depth and end < len(source):
                if source.startswith("/*", end):
                    depth, end = depth + 1, end + 2
                elif source.startswith("*/", end):
                    depth, end = depth - 1, end + 2
                else:
                    end += 1
        elif kind != "skip":
            tokens.append(Token(match.group().removeprefix("r#"), line, kind))
        line += source.count("\n", at, end)
        at = end
    return tokens


def closed(tokens, at):
    """The index after the bracket that closes the one at `at`."""
    depth = 0
    for index in range(at, len(tokens)):
        if tokens[index].kind == "sign":
            if tokens[index].text in CLOSING:
                depth += 1
            elif tokens[index].text in CLOSING.values():
                depth -= 1
                if depth == 0:
                    return index + 1
    return len(tokens)


def ended(tokens, at):
    """The index after the item that begins at `at`: after its `;` or its braces."""
    while at < len(tokens):
        text = tokens[at].text if tokens[at].kind == "sign" else ""
        if text == ";":
            return at + 1
        if text == "{":
            after = closed(tokens, at)
            # `const X: [T; 2] = [..];`, `use a::{b};` and `let x = S { .. };` go on after the brace.
            return after + 1 if after < len(tokens) and tokens[after].text == ";" else after
        at = closed(tokens, at) if text in CLOSING else at + 1
    return at


def only_for_tests(attribute):
    """Whether `cfg(..)` asks for `test`, not for its absence."""
    texts = [token.text for token in attribute]
    if texts[:1] != ["cfg"] or "test" not in texts:
        return False
    at = texts.index("test")
    return "not" not in texts[:at] and "any" not in texts[:at]


def conditional_paths(texts):
    """The files that `cfg_attr(.., path = "..")` names, of its tokens' texts."""
    found = []
    for at in range(len(texts) - 2):
        if texts[at : at + 2] == ["path", "="] and texts[at - 1] == ",":
            found.append(texts[at + 2].strip('"'))
    return found


@dataclass
class Use:
    """One leaf of a `use` tree: `path` is all of it, `name` what it is called here, `*` for a glob."""

    path: list
    name: str
    line: int
    public: bool


@dataclass
class Module:
    path: tuple
    file: Path
    # Where children that are files stand.
    folder: Path
    inline: bool = False
    items: dict = field(default_factory=dict)
    children: dict = field(default_factory=lambda: defaultdict(list))
    uses: list = field(default_factory=list)
    # What is neither an item's name nor in a `use`.
    body: list = field(default_factory=list)


class Crate:
    """The modules of a crate, and which of its files imports from which."""

    def __init__(self, root, folder):
        self.root = root
        self.modules = defaultdict(list)
        self.edges = {}
        source = folder / "src"
        for name in ("lib.rs", "main.rs"):
            if (source / name).is_file():
                self.read(Module((), source / name, source))
        for modules in list(self.modules.values()):
            for module in modules:
                self.imports(module)

    # Reading

    def read(self, module):
        self.modules[module.path].append(module)
        self.items(module, tokens_of(module.file.read_text(encoding="utf-8")))

    def items(self, module, tokens):
        """Sorts the tokens of a module into items, children, uses and the rest."""
        at = 0
        while at < len(tokens):
            begin = at
            test, path, others = False, None, []
            while at + 1 < len(tokens) and tokens[at].text == "#":
                bracket = at + 2 if tokens[at + 1].text == "!" else at + 1
                after = closed(tokens, bracket)
                attribute = tokens[bracket + 1 : after - 1]
                test |= bracket == at + 1 and only_for_tests(attribute)
                texts = [token.text for token in attribute]
                if texts[:2] == ["path", "="]:
                    path = texts[2].strip('"')
                elif texts[:1] == ["cfg_attr"]:
                    others += conditional_paths(texts)
                # Derived and named traits are no imports; serde's `with = ".."` is a string.
                at = after
            keyword, public = at, False
            while keyword < len(tokens) and (
                tokens[keyword].text in QUALIFIERS or tokens[keyword].kind == "string"
            ):
                if tokens[keyword].text == "pub":
                    public = True
                    if keyword + 1 < len(tokens) and tokens[keyword + 1].text == "(":
                        keyword = closed(tokens, keyword + 1) - 1
                keyword += 1
            if keyword >= len(tokens):
                break
            text = tokens[keyword].text
            if text == "const" and tokens[keyword + 1].text in {"fn", "unsafe", "async", "extern"}:
                while tokens[keyword].text != "fn":
                    keyword += 1
                text = "fn"
            after = self.end(tokens, keyword, text)
            if test:
                pass
            elif text == "mod":
                self.child(module, tokens, keyword, after, path, others)
            elif text == "use":
                self.use(module, tokens, keyword + 1, [], public)
            else:
                if text in ITEMS:
                    name = keyword + 2 if text == "macro_rules" else keyword + 1
                    while tokens[name].text in {"mut", "unsafe"}:
                        name += 1
                    module.items[tokens[name].text] = tokens[name].line
                module.body += self.without_tests(tokens[keyword:after])
            at = max(after, begin + 1)

    @staticmethod
    def end(tokens, keyword, text):
        """The index after the item whose keyword stands at `keyword`."""
        if text in {"use", "const", "static", "type"}:
            # Braces do not end these, `;` does.
            at = keyword
            while at < len(tokens) and tokens[at].text != ";":
                opens = tokens[at].kind == "sign" and tokens[at].text in CLOSING
                at = closed(tokens, at) if opens else at + 1
            return at + 1
        return ended(tokens, keyword)

    @staticmethod
    def without_tests(tokens):
        """Tokens without what stands after an inner `#[cfg(test)]`, such as in an `impl`."""
        kept, at = [], 0
        while at < len(tokens):
            if tokens[at].text == "#" and at + 1 < len(tokens) and tokens[at + 1].text == "[":
                after = closed(tokens, at + 1)
                if only_for_tests(tokens[at + 2 : after - 1]):
                    after = ended(tokens, after)
                at = after
            else:
                kept.append(tokens[at])
                at += 1
        return kept

    def child(self, module, tokens, keyword, after, path, others):
        """Reads a child module: within the braces, or from each file that it can be."""
        name = tokens[keyword + 1].text
        inner = module.path + (name,)
        if tokens[keyword + 2].text == "{":
            child = Module(inner, module.file, module.folder / name, inline=True)
            self.modules[inner].append(child)
            self.items(child, tokens[keyword + 3 : after - 1])
            module.children[name].append(child)
            return
        files = [module.folder / f"{name}.rs", module.folder / name / "mod.rs"]
        if path:
            files = [module.file.parent / path]
        files = [file for file in files if file.is_file()][:1]
        files += [module.file.parent / other for other in others]
        for file in filter(Path.is_file, files):
            folder = file.parent if file.name == "mod.rs" else file.parent / file.stem
            child = Module(inner, file, folder)
            self.read(child)
            module.children[name].append(child)

    def use(self, module, tokens, at, prefix, public):
        """Reads a `use` tree from `at`, returns the index after it."""
        path = list(prefix)
        while at < len(tokens):
            token = tokens[at]
            if token.text == "{":
                at += 1
                while tokens[at].text != "}":
                    at = self.use(module, tokens, at, path, public)
                    if tokens[at].text == ",":
                        at += 1
                return at + 1
            if token.text == "*":
                module.uses.append(Use(path, "*", token.line, public))
                return at + 1
            if token.kind == "name":
                path = path + [token.text]
                following = tokens[at + 1].text
                if following == "::":
                    at += 2
                    continue
                if path[-1] == "self" and len(path) > 1:
                    path = path[:-1]
                name = path[-1]
                at += 1
                if following == "as":
                    name = tokens[at + 1].text
                    at += 2
                module.uses.append(Use(path, name, token.line, public))
                return at
            # A leading `::`, or what is no tree.
            at += 1
        return at

    # Resolving

    def start(self, module, path):
        """The modules in which a path begins, and the rest of the path; `None` outside of this crate."""
        where, rest = module.path, list(path)
        if rest[0] == "crate":
            return (), rest[1:]
        anchored = rest[0] in {"self", "super"}
        while rest and rest[0] in {"self", "super"}:
            if rest[0] == "super":
                where = where[:-1]
            rest = rest[1:]
        return (where, rest) if anchored or rest else (None, rest)

    def defined(self, where, path, seen=frozenset()):
        """Where a path that begins in the module `where` ends: a set of (file, module path or None)."""
        if (where, tuple(path)) in seen:
            return set()
        seen = seen | {(where, tuple(path))}
        found = set()
        # A stand-in within a file gives way to the module that is a file.
        for module in sorted(self.modules.get(where, []), key=lambda module: module.inline):
            if module.inline and found:
                break
            if not path:
                found.add((module.file, module.path))
                continue
            first, rest = path[0], path[1:]
            if first in module.children:
                found |= self.defined(where + (first,), rest, seen)
                continue
            if first in module.items:
                found.add((module.file, None))
                continue
            named = [use for use in module.uses if use.name == first]
            for use in named:
                begin, inner = self.start(module, use.path)
                if use.path[0] == first or len(path) > LONGEST_PATH:
                    continue
                if begin is not None:
                    found |= self.defined(begin, inner + rest, seen)
            if named:
                continue
            for use in module.uses:
                if use.name == "*" and self.local(module, use.path[0]):
                    begin, inner = self.start(module, use.path)
                    if begin is not None:
                        found |= self.defined(begin, inner + list(path), seen)
        return found

    @staticmethod
    def local(module, first):
        """Whether a path that begins so may be of this crate; else it is of another one."""
        named = any(use.name == first and use.path[0] != first for use in module.uses)
        return first in {"crate", "self", "super"} or first in module.children or named or first in module.items

    def imports(self, module):
        """Notes the files that a module imports from, with the line and the name."""
        reads = self.paths(module)
        mentioned = {path[0]: line for path, line in reversed(reads)}
        heads = {path[0] for path, _ in reads if len(path) > 1}
        for use in module.uses:
            if not self.local(module, use.path[0]):
                continue
            begin, rest = self.start(module, use.path)
            if begin is None:
                continue
            if use.name == "*":
                # By the names that are used of it.
                for name, line in mentioned.items():
                    local = name in module.items or name in module.children
                    if not local and not any(other.name == name for other in module.uses):
                        self.edge(module, self.defined(begin, rest + [name]), line, name)
                continue
            targets = self.defined(begin, rest)
            if use.public and (use.name not in mentioned):
                below = all(self.below(module, file) for file, _ in targets)
                if below:
                    continue
            if use.name in heads and all(end is not None for _, end in targets):
                # A module, used for what is in it: see the paths below.
                continue
            self.edge(module, targets, use.line, "::".join(use.path))
        for path, line in reads:
            if len(path) < 2:
                continue
            anchored = path[0] in {"crate", "self", "super"}
            known = path[0] in module.children or any(use.name == path[0] for use in module.uses)
            if anchored or known:
                begin, rest = self.start(module, path)
                self.edge(module, self.defined(begin, rest), line, "::".join(path))

    def below(self, module, file):
        """Whether a file is of a module below this one."""
        return any(
            other.file == file and other.path[: len(module.path)] == module.path
            for modules in self.modules.values()
            for other in modules
        )

    @staticmethod
    def paths(module):
        """The paths in a module's code, single names too, each with its line."""
        found, at, body = [], 0, module.body
        while at < len(body):
            token = body[at]
            before = body[at - 1].text if at else ""
            if token.kind != "name" or before in {".", "::"}:
                at += 1
                continue
            path, line = [token.text], token.line
            while at + 2 < len(body) and body[at + 1].text == "::" and body[at + 2].kind == "name":
                path.append(body[at + 2].text)
                at += 2
            found.append((path, line))
            at += 1
        return found

    def edge(self, module, targets, line, name):
        for file, _ in targets:
            if file != module.file:
                self.edges.setdefault(module.file, {}).setdefault(file, (line, name))


def circles(edges):
    """The sets of files that reach one another, by Tarjan's algorithm, and a shortest circle in each."""
    index, low, stack, on, found = {}, {}, [], set(), []

    def visit(file):
        index[file] = low[file] = len(index)
        stack.append(file)
        on.add(file)
        for other in edges.get(file, {}):
            if other not in index:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in on:
                low[file] = min(low[file], index[other])
        if low[file] == index[file]:
            group = set()
            while file not in group:
                group.add(stack.pop())
            on.difference_update(group)
            if len(group) > 1:
                found.append((sorted(group), shortest(edges, group)))

    sys.setrecursionlimit(10_000)
    for file in sorted(edges):
        if file not in index:
            visit(file)
    return found


def shortest(edges, group):
    best = None
    for begin in sorted(group):
        paths, seen = [[begin]], {begin}
        while paths and (best is None or len(paths[0]) < len(best)):
            path = paths.pop(0)
            for other in sorted(edges.get(path[-1], {})):
                if other == begin:
                    best = path
                    paths = []
                    break
                if other in group and other not in seen:
                    seen.add(other)
                    paths.append(path + [other])
    return best


class Check:
    def __init__(self, root):
        self.root = root
        self.found = []
        self.crates = {}
        for folder in [root, *sorted(root.iterdir())]:
            manifest = folder / "Cargo.toml"
            if folder.is_dir() and manifest.is_file():
                read = tomllib.loads(manifest.read_text(encoding="utf-8"))
                if "package" in read:
                    self.crates[read["package"]["name"]] = (folder, read)

    def run(self):
        self.directions()
        self.files()
        for name, (folder, _) in self.crates.items():
            self.circles(Crate(self.root, folder))
        self.families()
        return self.found

    def report(self, file, line, rule, what):
        self.found.append((str(file.relative_to(self.root)), line, rule, what))

    def sources(self, folder):
        """Rust files of the repository below a folder, build outputs and hidden folders left out."""
        for file in sorted(folder.rglob("*.rs")):
            parts = file.relative_to(self.root).parts
            if "target" not in parts and not any(part.startswith(".") for part in parts):
                yield file

    def directions(self):
        for name, (folder, manifest) in self.crates.items():
            path = folder / "Cargo.toml"
            if name not in CRATES:
                self.report(path, 1, "up", f"{name} has no place in CRATES of {Path(__file__).name}")
                continue
            above = CRATES[CRATES.index(name) + 1 :]
            lines = path.read_text(encoding="utf-8").splitlines()
            tables = [manifest, *manifest.get("target", {}).values()]
            for table in tables:
                for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
                    for dependency, how in table.get(kind, {}).items():
                        if isinstance(how, dict):
                            dependency = how.get("package", dependency)
                        if dependency in above:
                            line = next((n for n, text in enumerate(lines, 1) if dependency in text), 1)
                            self.report(path, line, "up", f"{name} depends on {dependency}, which is above it")
            if folder == self.root:
                continue
            forbidden = {crate.replace("-", "_"): crate for crate in above}
            for file in self.sources(folder):
                for token in tokens_of(file.read_text(encoding="utf-8")):
                    if token.kind == "name" and token.text in forbidden:
                        what = f"{name} names {forbidden[token.text]}, which is above it"
                        self.report(file, token.line, "up", what)

    def reason(self, text, words):
        first = text.splitlines()[:FIRST_LINES]
        return any(re.match(rf"\s*// {words} because: \S", line) for line in first)

    def files(self):
        for file in self.sources(self.root):
            text = file.read_text(encoding="utf-8")
            name = file.relative_to(self.root)
            lines = text.count("\n")
            if lines > MOST_LINES and not self.reason(text, "Long"):
                self.report(file, lines, "long", f"{lines} lines; split it, or say `// Long because: ..`")
            if name.parts[0] == "rag-cpu" or str(name) in MAPS:
                continue
            if {"tests", "benches"} & set(name.parts):
                continue
            for token in tokens_of(text):
                if token.kind == "name" and token.text == "unsafe":
                    self.report(file, token.line, "unsafe", "it belongs into rag-cpu")

    def circles(self, crate):
        def show(file):
            return str(file.relative_to(self.root))

        for group, circle in circles(crate.edges):
            members = set(group)
            for file, other in zip(circle, circle[1:] + circle[:1]):
                line, name = crate.edges[file][other]
                what = f"`{name}` is of {show(other)} (a shortest circle; {len(group)} files are in circles)"
                self.report(file, line, "circle", what)
            for file in group:
                for other, (line, name) in sorted(crate.edges[file].items()):
                    shown = any(pair == (file, other) for pair in zip(circle, circle[1:] + circle[:1]))
                    if other in members and not shown:
                        self.report(file, line, "circle", f"`{name}` is of {show(other)}")

    def families(self):
        """Types and modules that are named after a variant of `enum Generator`."""
        folder = self.root / GENERATOR
        enums = folder / "mod.rs"
        if not enums.is_file():
            return
        tokens = tokens_of(enums.read_text(encoding="utf-8"))
        texts = [token.text for token in tokens]
        # `enum Generator {`, or the list of that name that a macro makes the enum of.
        at = next((n for n in range(1, len(texts)) if self.is_enum(texts, n)), None)
        if at is None:
            self.report(enums, 1, "family", "there is no `enum Generator` that says which families there are")
            return
        body = texts[at + 2 : closed(tokens, at + 1) - 1]
        families = [name for name, following in zip(body, body[1:]) if following == "(" and name[0].isupper()]
        type_name = re.compile(rf"(?:[A-Z][a-z0-9]*)?(?:{'|'.join(families)})(?:[A-Z]\w*)?$")
        modules = {name.lower() for name in families}
        for crate, (where, _) in self.crates.items():
            for file in self.sources(where / "src"):
                inside = file.is_relative_to(folder)
                kept = "fixtures" in str(file.relative_to(self.root)) or "checkpoint" in file.stem
                text = file.read_text(encoding="utf-8")
                if inside or kept or file.parent.name == "checkpoint" or self.reason(text, "Names a family"):
                    continue
                for line, name in self.named(file, type_name, modules):
                    self.report(file, line, "family", f"`{name}`: ask the family's trait")

    @staticmethod
    def is_enum(texts, at):
        """Whether the enum of generators, or the list that it is made of, begins here."""
        before = texts[at - 1]
        return texts[at : at + 2] == ["Generator", "{"] and before in {"enum", "{", "]"}

    def named(self, file, type_name, modules):
        """Lines and names of families in a file's code, but for tests and re-exports."""
        tokens = Crate.without_tests(tokens_of(file.read_text(encoding="utf-8")))
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token.text == "pub":
                after = at + 1
                if tokens[after].text == "(":
                    after = closed(tokens, after)
                if tokens[after].text == "use":
                    at = Crate.end(tokens, after, "use")
                    continue
            if token.kind == "name":
                following = tokens[at + 1].text if at + 1 < len(tokens) else ""
                before = tokens[at - 1].text if at else ""
                if type_name.match(token.text):
                    yield token.line, token.text
                elif token.text in modules and following == "::" and before != ".":
                    yield token.line, token.text
            at += 1


PLANTED = {
    "Cargo.toml": '[package]\nname = "burn-rag"\n[dependencies]\nrag-core = "1"\n',
    "src/lib.rs": "pub use rag_core as core;\n",
    "rag-core/Cargo.toml": '[package]\nname = "rag-core"\n[dev-dependencies]\nrag-train = "1"\n',
    "rag-core/src/lib.rs": """
        //! Names rag_train::X in a comment, which is nothing.
        mod a; mod b; mod c; mod d; mod e; mod good; mod user;
        #[cfg_attr(not(feature = "x"), path = "chosen_without_x.rs")]
        mod chosen;
        mod parent;
        pub use parent::Child;
        const X: &str = "unsafe rag_generate /* ";
        fn long<'a>(c: char) -> &'a str { if c == '"' || c == '\\'' { "//" } else { r#"" rag_generate"# } }
    """,
    # By a nested tree and back by a path in the code.
    "rag-core/src/a.rs": "use crate::{good::Good, b::{self, inner::{B as Renamed}}};\npub struct A(Renamed, Good);",
    "rag-core/src/b.rs": "pub mod inner { pub struct B; impl B { fn f() { crate::a::A; } } }",
    # Through a re-export, and a glob.
    "rag-core/src/c.rs": "use crate::d::Thing;\npub struct C(Thing);",
    "rag-core/src/d.rs": "pub use crate::e::Thing;",
    "rag-core/src/e.rs": "use super::c::*;\npub struct Thing(Option<Box<C>>);",
    # In the file that a condition chooses.
    "rag-core/src/chosen.rs": "pub struct Chosen;",
    "rag-core/src/chosen_without_x.rs": "use crate::user::User;\npub struct Chosen(Option<Box<User>>);",
    "rag-core/src/user.rs": "use crate::chosen::Chosen;\npub struct User(Chosen);",
    # No circle: a re-export that the parent does not use, and tests.
    "rag-core/src/good.rs": """
        pub struct Good;
        #[cfg(test)]
        mod tests { use crate::a::A; fn f(_: A) {} }
        impl Good { #[cfg(test)] fn g(_: crate::a::A) {} }
    """,
    "rag-core/src/parent/mod.rs": "mod child;\npub use child::Child;\npub fn helper() {}",
    "rag-core/src/parent/child.rs": "use super::helper;\npub struct Child;\nfn f() { helper() }",
    "rag-generate/Cargo.toml": '[package]\nname = "rag-generate"\n[dependencies]\nrag-core = "1"\n',
    "rag-generate/src/lib.rs": "mod bad; mod told; mod used; pub mod generator;\npub use generator::BartConfig;",
    "rag-generate/src/generator/mod.rs": "families! { #[derive(Debug)] Generator { Bart(Bart), T5(u8), } GeneratorConfig { Bart(BartConfig), } }\n"
    "struct Bart;\npub struct BartConfig;\nimpl Generator {}",
    "rag-generate/src/bad.rs": """
        fn f(x: crate::generator::Generator) -> bool { matches!(x, Generator::T5(_)) }
        fn g() { let started = rag_train::run(); unsafe { started } }
    """,
    "rag-generate/src/told.rs": "// Names a family because: it starts one.\nfn f(_: BartConfig) {}",
    # A circle that a re-export hides: the parent uses what it re-exports.
    "rag-generate/src/used/mod.rs": "mod child;\npub use child::Child;\npub struct Owner(Child);",
    "rag-generate/src/used/child.rs": "use super::Owner;\npub struct Child(Option<Box<Owner>>);",
    "tests/long.rs": "//\n" * 601,
    "tests/told.rs": "// Long because: it is a table.\n" + "//\n" * 601,
}
EXPECTED = {
    ("rag-core/Cargo.toml", "up"): 1,
    ("rag-generate/src/bad.rs", "up"): 1,
    ("rag-generate/src/bad.rs", "unsafe"): 1,
    ("rag-generate/src/bad.rs", "family"): 1,
    ("rag-core/src/a.rs", "circle"): 1,
    ("rag-core/src/b.rs", "circle"): 1,
    ("rag-core/src/c.rs", "circle"): 1,
    ("rag-core/src/e.rs", "circle"): 1,
    ("rag-core/src/chosen_without_x.rs", "circle"): 1,
    ("rag-core/src/user.rs", "circle"): 1,
    ("rag-generate/src/used/mod.rs", "circle"): 1,
    ("rag-generate/src/used/child.rs", "circle"): 1,
    ("tests/long.rs", "long"): 1,
}


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name, text in PLANTED.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        counts = defaultdict(int)
        found = Check(root).run()
        for file, _, rule, _ in found:
            counts[file, rule] += 1
    if dict(counts) == EXPECTED:
        print(f"self-test: {len(EXPECTED)} planted violations found, and nothing else")
        return True
    for key in sorted(counts.keys() | EXPECTED.keys()):
        if counts.get(key, 0) != EXPECTED.get(key, 0):
            print(f"self-test: {key}: expected {EXPECTED.get(key, 0)}, found {counts.get(key, 0)}")
    for file, line, rule, what in found:
        print(f"  {file}:{line}: {rule}: {what}")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--self-test", action="store_true", help="check the checks themselves")
    parser.add_argument("--edges", type=Path, metavar="FILE", help="print what a file imports from")
    arguments = parser.parse_args()
    if arguments.self_test:
        return 0 if self_test() else 1
    check = Check(arguments.root.resolve())
    if arguments.edges:
        file = arguments.edges.resolve()
        for folder, _ in check.crates.values():
            for other, (line, name) in sorted(Crate(check.root, folder).edges.get(file, {}).items()):
                print(f"{line}: `{name}` is of {other.relative_to(check.root)}")
        return 0
    found = sorted(check.run())
    for file, line, rule, what in found:
        print(f"{file}:{line}: {rule}: {what}")
    print(f"{len(found)} violations" if found else "no violation of the structure")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
