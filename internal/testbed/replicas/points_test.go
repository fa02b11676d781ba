package replicas

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// faultPoints returns the names of all fault points in the repository's code. A name is a string in the call of
// fault.Point, or one in a call of the function that hands it on.
func faultPoints(t *testing.T, root string) []string {
	t.Helper()
	points := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return err
		case path != root && (d.Name() == "testbed" || d.Name() == "fault" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		}
		found, err := pointsOf(path)
		for _, point := range found {
			points[point] = true
		}
		return err
	})
	check(t, err)
	if len(points) == 0 {
		t.Fatal("no fault points")
	}
	return slices.Sorted(maps.Keys(points))
}

// pointsOf returns the fault points of one package.
func pointsOf(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var functions []*ast.FuncDecl
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return nil, err
		}
		for _, declaration := range parsed.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Body != nil {
				functions = append(functions, function)
			}
		}
	}
	var points []string
	for _, function := range functions {
		for _, argument := range arguments(function, 0, isFaultPoint) {
			names, err := stringsFor(argument, function, functions)
			if err != nil {
				return nil, fmt.Errorf("a fault point in %s, %s: %w", dir, function.Name.Name, err)
			}
			points = append(points, names...)
		}
	}
	return points, nil
}

// arguments returns the argument at an index of each call in a function that is meant.
func arguments(function *ast.FuncDecl, index int, meant func(ast.Expr) bool) []ast.Expr {
	var found []ast.Expr
	ast.Inspect(function.Body, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok && meant(call.Fun) && len(call.Args) > index {
			found = append(found, call.Args[index])
		}
		return true
	})
	return found
}

func isFaultPoint(callee ast.Expr) bool {
	selector, ok := callee.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != "Point" {
		return false
	}
	pkg, ok := selector.X.(*ast.Ident)
	return ok && pkg.Name == "fault"
}

// stringsFor returns what an argument can be: the string that it is; where it is a parameter of the function, the
// strings in the package's calls of that function; where it is what another function returned, that one's strings.
func stringsFor(argument ast.Expr, function *ast.FuncDecl, all []*ast.FuncDecl) ([]string, error) {
	name, ok := argument.(*ast.Ident)
	if !ok {
		return literals([]ast.Expr{argument})
	}
	if index := slices.Index(parameters(function), name.Name); index >= 0 {
		var given []ast.Expr
		for _, caller := range all {
			given = append(given, arguments(caller, index, func(callee ast.Expr) bool { return calleeName(callee) == function.Name.Name })...)
		}
		return literals(given)
	}
	made := ""
	ast.Inspect(function.Body, func(node ast.Node) bool {
		if assigned, ok := node.(*ast.AssignStmt); ok && len(assigned.Lhs) == 1 && calleeName(assigned.Lhs[0]) == name.Name {
			if call, ok := assigned.Rhs[0].(*ast.CallExpr); ok {
				made = calleeName(call.Fun)
			}
		}
		return true
	})
	var returned []ast.Expr
	for _, maker := range all {
		if maker.Name.Name == made {
			ast.Inspect(maker.Body, func(node ast.Node) bool {
				if result, ok := node.(*ast.ReturnStmt); ok {
					returned = append(returned, result.Results...)
				}
				return true
			})
		}
	}
	return literals(returned)
}

// literals returns strings that stand in the code as they are; an empty one names no point.
func literals(expressions []ast.Expr) ([]string, error) {
	var texts []string
	for _, expression := range expressions {
		literal, ok := expression.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return nil, fmt.Errorf("its name is not found as a string")
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			return nil, err
		}
		if text != "" {
			texts = append(texts, text)
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("nothing gives its name")
	}
	return texts, nil
}

func parameters(function *ast.FuncDecl) []string {
	var names []string
	for _, field := range function.Type.Params.List {
		for _, name := range field.Names {
			names = append(names, name.Name)
		}
	}
	return names
}

func calleeName(callee ast.Expr) string {
	switch callee := callee.(type) {
	case *ast.Ident:
		return callee.Name
	case *ast.SelectorExpr:
		return callee.Sel.Name
	}
	return ""
}

// The search finds each way to name a point, and refuses what it can't read.
func TestFaultPointsAreFound(t *testing.T) {
	for source, want := range map[string]string{
		`func f() { fault.Point("a"); if true { fault.Point("b") } }`:                                                     "a b",
		`func f(x int, p string) { fault.Point(p) }; func g() { f(1, "c") }; func h() { f(2, "d") }`:                      "c d",
		`type t int; func (t) f(p string) { fault.Point(p) }; func g() { func() { t(0).f("e") }() }`:                      "e",
		`func f() { if p := g(1); p != "" { fault.Point(p) } }; func g(int) string { if true { return "h" }; return "" }`: "h",
		`func f() { other.Point("a") }`:                                  "",
		`func f(p string) { fault.Point(p) }`:                            "nothing gives its name",
		`func f(p string) { fault.Point(p) }; func g(q string) { f(q) }`: "not found as a string",
		`func f() { fault.Point("a" + "b") }`:                            "not found as a string",
		`func f() { p := "a"; fault.Point(p) }`:                          "nothing gives its name",
	} {
		dir := t.TempDir()
		check(t, os.WriteFile(filepath.Join(dir, "x.go"), []byte("package x; "+source), 0o644))
		points, err := pointsOf(dir)
		if got := strings.Join(points, " ") + fmt.Sprint(err); err == nil && got != want+"<nil>" || err != nil && !strings.Contains(got, want) {
			t.Errorf("%s: %s", source, got)
		}
	}
}
