"""The stub of the native module, and its texts: what editors and `help()` show is what there is."""

import ast
import inspect
import pathlib
import unittest
from typing import Any, Dict, List

import flagcx_p2p
from flagcx_p2p import _native

PACKAGE = pathlib.Path(flagcx_p2p.__file__).parent


def members(body: "List[ast.stmt]") -> "Dict[str, ast.FunctionDef]":
    """The functions of a stub by name, of overloads the last."""
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


class Stub(unittest.TestCase):
    """`./x check` compares more, with mypy's stubtest; this needs nothing."""

    def setUp(self) -> None:
        self.stub = ast.parse((PACKAGE / "_native.pyi").read_text())
        # Others are for type checkers only.
        public = (node for node in self.stub.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))
        self.classes = {node.name: node for node in public}

    def public(self, thing: Any) -> "set[str]":
        return {name for name in vars(thing) if not name.startswith("_")}

    def test_it_has_every_class_function_and_method(self) -> None:
        self.assertEqual(set(self.classes) | set(members(self.stub.body)), self.public(_native))
        for name, node in self.classes.items():
            named = {member for member in members(node.body) if not member.startswith("_")}
            # A subclass need not repeat what it overrides.
            inherited = {member for base in getattr(_native, name).__mro__[1:] for member in vars(base)}
            self.assertEqual(named - inherited, self.public(getattr(_native, name)) - inherited, name)

    def test_parameters_have_the_same_names_and_defaults(self) -> None:
        for name, node in self.classes.items():
            for method, stub in members(node.body).items():
                if method.startswith("__") or any(isinstance(mark, ast.Name) and mark.id == "property" for mark in stub.decorator_list):
                    continue
                with self.subTest(f"{name}.{method}"):
                    signature = inspect.signature(getattr(getattr(_native, name), method))
                    arguments = stub.args.args + stub.args.kwonlyargs
                    self.assertEqual([argument.arg for argument in arguments], list(signature.parameters))
                    keywords = inspect.Parameter.KEYWORD_ONLY
                    self.assertEqual(
                        [argument.arg for argument in stub.args.kwonlyargs],
                        [one.name for one in signature.parameters.values() if one.kind == keywords],
                    )
                    # Of overloads the last has all arguments without defaults.
                    if not self.is_overloaded(stub):
                        defaults = {one.name: one.default for one in signature.parameters.values()}
                        self.assertEqual(
                            self.defaults(stub), {one: it for one, it in defaults.items() if it is not inspect.Parameter.empty}
                        )

    @staticmethod
    def is_overloaded(stub: ast.FunctionDef) -> bool:
        return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in stub.decorator_list)

    @staticmethod
    def defaults(stub: ast.FunctionDef) -> "Dict[str, Any]":
        """The arguments of a function of the stub that have defaults."""
        arguments, defaults = stub.args.args, stub.args.defaults
        found = list(zip(arguments[len(arguments) - len(defaults) :], defaults))
        found += [(one, it) for one, it in zip(stub.args.kwonlyargs, stub.args.kw_defaults) if it is not None]
        return {argument.arg: ast.literal_eval(default) for argument, default in found}

    def test_everything_has_a_text(self) -> None:
        for name in self.public(_native):
            thing = getattr(_native, name)
            self.assertTrue(thing.__doc__, name)
            if inspect.isclass(thing):
                for member in self.public(thing):
                    self.assertTrue(getattr(thing, member).__doc__, f"{name}.{member}")

    def test_the_package_exports_what_it_says(self) -> None:
        self.assertEqual(sorted(flagcx_p2p.__all__), flagcx_p2p.__all__)
        for name in flagcx_p2p.__all__:
            self.assertTrue(getattr(flagcx_p2p, name).__doc__, name)
        self.assertTrue((PACKAGE / "py.typed").exists())


if __name__ == "__main__":
    unittest.main()
