package volume

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

var long = strings.Repeat("l", 253)

// claim has what a claim's author could try.
var claim = Claim{
	Namespace: "team", Name: "notes", Volume: "pvc-1",
	Labels: map[string]string{
		"app": "wiki", "example.com/tier": "gold", "empty": "", "empty2": "", "up": "..", "dots": "...", "own": "${pv.metadata.name}",
		"long": long, "zh": "\u4e2d\u6587", "slash": "a/b", "lines": "a\nb", "reserved": ".sharevol", "percent": "%s",
	},
	Annotations: map[string]string{
		"path": "a/b", "up": "../..", "lines": "a\nb", "back": `..\x`, "nul": "a\x00", "hash": "a#b", "root": "/", "lead": "/etc", "trail": "a/",
		"deep": "a/.sharevol/owners", "dot": "./a", "separator": "a\u2028b", "bad": "a\xff", "empty": "", "long": long + "///",
	},
}

// The templates of a class with a claim: the path.
func TestTemplates(t *testing.T) {
	cases := map[string]struct {
		parameters []string
		want       string
	}{
		"default":             {nil, "pvc-1"},
		"literal":             {[]string{"subDir", "a/b"}, "a/b"},
		"csi-driver-nfs":      {[]string{"subDir", "${pvc.metadata.namespace}/${pvc.metadata.name}/${pv.metadata.name}"}, "team/notes/pvc-1"},
		"label in the middle": {[]string{"subDir", "x-${pvc.metadata.labels['app']}-y"}, "x-wiki-y"},
		"label with a prefix": {[]string{"subDir", "${pvc.metadata.labels['example.com/tier']}"}, "gold"},
		"nfs-subdir":          {[]string{"pathPattern", "${.PVC.namespace}-${.PVC.name}/${.PVC.labels.app}"}, "team-notes/wiki"},
		"nfs-subdir, dotted":  {[]string{"pathPattern", "${.PVC.labels.example.com/tier}"}, "gold"},
		"mixed in the alias":  {[]string{"PATHPATTERN", "${.PVC.name}-${pv.metadata.name}"}, "notes-pvc-1"},
		"alias, same text":    {[]string{"pathPattern", "${pvc.metadata.name}", "subDir", "${pvc.metadata.name}"}, "notes"},
		"alias, same meaning": {[]string{"pathPattern", "a-${.PVC.labels.app}", "subDir", "a-${pvc.metadata.labels['app']}"}, "a-wiki"},
		"dollars and braces":  {[]string{"subDir", "$a{b}$"}, "$a{b}$"},
		"unicode":             {[]string{"subDir", "${pvc.metadata.labels['zh']}"}, "\u4e2d\u6587"},
		"long label":          {[]string{"subDir", "${pvc.metadata.labels['long']}"}, long},
		"percent sign":        {[]string{"subDir", "%d${pvc.metadata.labels['percent']}"}, "%d%s"},
		"three dots":          {[]string{"subDir", "${pvc.metadata.labels['dots']}"}, "..."},
		"never again":         {[]string{"subDir", "${pvc.metadata.labels['own']}"}, "${pv.metadata.name}"},
		"never put together":  {[]string{"subDir", "$${pvc.metadata.labels['empty']}{pv.metadata.name}"}, "${pv.metadata.name}"},
		"slash allowed":       {[]string{"subDir", "x/${pvc.metadata.annotations['path']}", "subDirAllowSlashes", "true"}, "x/a/b"},
		"empty beside text":   {[]string{"subDir", "a${pvc.metadata.labels['empty']}b"}, "ab"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			class, faults := class(c.parameters...)
			if got, errs := class.Render(claim); len(faults) > 0 || len(errs) > 0 || string(got.SubDir) != c.want {
				t.Errorf("%q, %q, %v; want %q", got.SubDir, faults, errs, c.want)
			}
		})
	}
}

// The templates of a class with a claim: every fault, and nothing else.
func TestTemplatesRefuseClaims(t *testing.T) {
	const slash = " must not contain a slash where the class does not set subDirAllowSlashes"
	const empty = " is empty, which leaves an empty path component"
	const allow = "subDirAllowSlashes"
	cases := map[string]struct {
		parameters []string
		want       []string // without what begins each
	}{
		"too long a label":            {[]string{"subDir", "xyz${pvc.metadata.labels['long']}"}, []string{`the path "xyz` + long + `" must not have a path component longer than 255 bytes`}},
		"slash in an annotation":      {[]string{"subDir", "x/${pvc.metadata.annotations['path']}"}, []string{`the value "a/b" of ${pvc.metadata.annotations['path']}` + slash}},
		"slash in a label":            {[]string{"pathPattern", "${.PVC.labels.slash}"}, []string{`the value "a/b" of ${.PVC.labels.slash}` + slash}},
		"up, nfs-subdir #250":         {[]string{"pathPattern", "${.PVC.annotations.up}"}, []string{`the value "../.." of ${.PVC.annotations.up}` + slash}},
		"up, CVE-2025-62878":          {[]string{"pathPattern", "${.PVC.annotations.up}/x", allow, "true"}, []string{`the path "../../x" must not have a "." or ".." path component`}},
		"up in a label":               {[]string{"subDir", "a/${pvc.metadata.labels['up']}"}, []string{`the path "a/.." must not have a "." or ".." path component`}},
		"up put together":             {[]string{"subDir", "a/.${pvc.metadata.labels['empty']}."}, []string{`the path "a/.." must not have a "." or ".." path component`}},
		"dot":                         {[]string{"subDir", "${pvc.metadata.annotations['dot']}", allow, "true"}, []string{`the path "./a" must not have a "." or ".." path component`}},
		"absolute":                    {[]string{"subDir", "${pvc.metadata.annotations['lead']}", allow, "true"}, []string{`the path "/etc" must be relative to the share root, without a leading slash`}},
		"root":                        {[]string{"subDir", "${pvc.metadata.annotations['root']}", allow, "true"}, []string{`the path "/" must be relative to the share root, without a leading slash`}},
		"slash at the end":            {[]string{"subDir", "${pvc.metadata.annotations['trail']}", allow, "true"}, []string{`the path "a/" must not have an empty path component`}},
		"backslash":                   {[]string{"subDir", "${pvc.metadata.annotations['back']}"}, []string{`the path "..\\x" must not contain a backslash or #`}},
		"hash":                        {[]string{"subDir", "${pvc.metadata.annotations['hash']}"}, []string{`the path "a#b" must not contain a backslash or #`}},
		"newline":                     {[]string{"subDir", "${pvc.metadata.labels['lines']}"}, []string{`the path "a\nb" must not contain a control character`}},
		"NUL":                         {[]string{"subDir", "${pvc.metadata.annotations['nul']}"}, []string{`the path "a\x00" must not contain a control character`}},
		"line separator":              {[]string{"subDir", "${pvc.metadata.annotations['separator']}"}, []string{`the path "a\u2028b" must not contain a control character`}},
		"not UTF-8":                   {[]string{"subDir", "${pvc.metadata.annotations['bad']}"}, []string{`the path "a\xff" must be valid UTF-8`}},
		"reserved":                    {[]string{"subDir", "${pvc.metadata.labels['reserved']}-${pv.metadata.name}"}, []string{`the path ".sharevol-pvc-1" must not have a path component that begins with .sharevol, which sharevol keeps for itself`}},
		"reserved, put together":      {[]string{"subDir", ".share${pvc.metadata.labels['empty']}vol"}, []string{`the path ".sharevol" must not have a path component that begins with .sharevol, which sharevol keeps for itself`}},
		"reserved, of a share within": {[]string{"subDir", "${pvc.metadata.annotations['deep']}", allow, "true"}, []string{`the path "a/.sharevol/owners" must not have a path component that begins with .sharevol, which sharevol keeps for itself`}},
		"missing label":               {[]string{"subDir", "a/${pvc.metadata.labels['gone']}"}, []string{"the claim has no ${pvc.metadata.labels['gone']}"}},
		"missing annotation":          {[]string{"pathPattern", "${.PVC.annotations.gone}"}, []string{"the claim has no ${.PVC.annotations.gone}"}},
		"empty and alone":             {[]string{"subDir", "${pvc.metadata.labels['empty']}"}, []string{"the value of ${pvc.metadata.labels['empty']}" + empty}},
		"empty at the end":            {[]string{"subDir", "a/${pvc.metadata.annotations['empty']}"}, []string{"the value of ${pvc.metadata.annotations['empty']}" + empty}},
		"empty, two of them":          {[]string{"subDir", "${pvc.metadata.labels['empty']}${pvc.metadata.labels['empty2']}/a"}, []string{"the value of ${pvc.metadata.labels['empty']}" + empty, "the value of ${pvc.metadata.labels['empty2']}" + empty}},
		"every fault at once":         {[]string{"subDir", "${pvc.metadata.labels['gone']}/${pvc.metadata.annotations['path']}/${pvc.metadata.labels['empty']}/${pvc.metadata.annotations['lines']}/${pvc.metadata.labels['up']}"}, []string{"the claim has no ${pvc.metadata.labels['gone']}", `the value "a/b" of ${pvc.metadata.annotations['path']}` + slash, "the value of ${pvc.metadata.labels['empty']}" + empty, `the path "x/x/x/a\nb/.." must not contain a control character and must not have a "." or ".." path component`}},
		"too long a path":             {[]string{"subDir", strings.Repeat("${pvc.metadata.labels['long']}/", 5) + "x"}, []string{`the path "` + strings.Repeat(long+"/", 5) + `x" must not be longer than 1024 bytes`}},
		"a key with a newline":        {[]string{"subDir", "${pvc.metadata.labels['a\nb']}"}, []string{`the claim has no "${pvc.metadata.labels['a\nb']}"`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			class, faults := class(c.parameters...)
			if len(faults) > 0 {
				t.Fatalf("the class has faults: %q", faults)
			}
			var want []string
			for _, fault := range c.want {
				want = append(want, "parameters["+class.SubDir.parameter+"]: Invalid value: "+strconv.Quote(class.SubDir.String())+": "+fault)
			}
			if got, errs := class.Render(claim); !slices.Equal(lines(errs), want) || got != (Rendered{}) {
				t.Errorf("%+v\ngot:\n%s\nwant:\n%s", got, strings.Join(lines(errs), "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// Names are the API server's to check, but what comes of them is checked here.
func TestHostileNames(t *testing.T) {
	c, _ := class("subDir", "${pvc.metadata.namespace}/${pvc.metadata.name}-${pv.metadata.name}", "subDirAllowSlashes", "true")
	for name, hostile := range map[string]Claim{
		"slash":    {Namespace: "team", Name: "a/b", Volume: "pvc-1"},
		"up":       {Namespace: "..", Name: "notes", Volume: "pvc-1"},
		"empty":    {Namespace: "", Name: "notes", Volume: "pvc-1"},
		"reserved": {Namespace: ".sharevol", Name: "notes", Volume: "pvc-1"},
		"NUL":      {Namespace: "team", Name: "notes", Volume: "pvc\x00"},
		"long":     {Namespace: "team", Name: long, Volume: "pvc-1"},
	} {
		if got, errs := c.Render(hostile); len(errs) != 1 || got != (Rendered{}) {
			t.Errorf("%s: %+v, %v", name, got, errs)
		}
	}
	c, _ = class("subDir", "${pvc.metadata.name}")
	if got, errs := c.Render(Claim{Name: long}); len(errs) > 0 || string(got.SubDir) != long {
		t.Errorf("a name of 253 characters: %q, %v", got.SubDir, errs)
	}
}

// What no claim can mend is a fault of the class.
func TestTemplatesRefused(t *testing.T) {
	const variables = " is not a variable, must be one of ${pvc.metadata.name}, ${pvc.metadata.namespace}, ${pvc.metadata.labels['KEY']}, ${pvc.metadata.annotations['KEY']}, ${pv.metadata.name}"
	const aliases = variables + ", ${.PVC.name}, ${.PVC.namespace}, ${.PVC.labels.KEY}, ${.PVC.annotations.KEY}"
	const dots, end = `must not have a "." or ".." path component`, "must not have an empty path component"
	cases := map[string]struct {
		parameter, value string
		want             []string
	}{
		"unknown variable":     {"subDir", "${pvc.metadata.uid}", []string{"${pvc.metadata.uid}" + variables}},
		"no variable":          {"subDir", "a${}b", []string{"${}" + variables}},
		"no key":               {"subDir", "${pvc.metadata.labels['']}", []string{"${pvc.metadata.labels['']}" + variables}},
		"letter case":          {"subDir", "${PVC.metadata.name}", []string{"${PVC.metadata.name}" + variables}},
		"alias's in subDir":    {"subDir", "${.PVC.name}", []string{"${.PVC.name}" + variables}},
		"alias's label":        {"subDir", "${.PVC.labels.k}", []string{"${.PVC.labels.k}" + variables}},
		"secrets' annotation":  {"subDir", "${pvc.annotations['k']}", []string{"${pvc.annotations['k']}" + variables}},
		"same fault twice":     {"subDir", "a//b//c/", []string{end}},
		"secrets' in subDir":   {"subDir", "${pvc.name}", []string{"${pvc.name}" + variables}},
		"secrets' in alias":    {"pathPattern", "${pvc.name}", []string{"${pvc.name}" + aliases}},
		"two unknown":          {"pathPattern", "${a}/${b\n}", []string{"${a}" + aliases, `"${b\n}"` + aliases}},
		"not closed":           {"subDir", "a/${pvc.metadata.name", []string{"${pvc.metadata.name is not closed with }"}},
		"nested":               {"subDir", "${pvc.metadata.labels['${pv.metadata.name}']}", []string{"${pvc.metadata.labels['${pv.metadata.name}" + variables}},
		"up":                   {"subDir", "../${pvc.metadata.name}", []string{dots}},
		"up at the end":        {"subDir", "${pvc.metadata.name}/..", []string{dots}},
		"absolute":             {"subDir", "/${pvc.metadata.name}", []string{"must be relative to the share root, without a leading slash"}},
		"slash at the end":     {"subDir", "${pvc.metadata.name}/", []string{end}},
		"slashes":              {"subDir", "a//${pvc.metadata.name}", []string{end}},
		"backslash":            {"subDir", `a\${pvc.metadata.name}`, []string{"must not contain a backslash or #"}},
		"hash":                 {"pathPattern", "a#${.PVC.name}", []string{"must not contain a backslash or #"}},
		"control character":    {"subDir", "a\t${pvc.metadata.name}", []string{"must not contain a control character"}},
		"paragraph separator":  {"subDir", "a\u2029${pvc.metadata.name}", []string{"must not contain a control character"}},
		"not UTF-8":            {"subDir", "a\xff${pvc.metadata.name}", []string{"must be valid UTF-8"}},
		"reserved":             {"subDir", ".sharevol${pvc.metadata.name}", []string{"must not have a path component that begins with .sharevol, which sharevol keeps for itself"}},
		"variable and literal": {"subDir", "/${a}", []string{"${a}" + variables, "must be relative to the share root, without a leading slash"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, fault := range c.want {
				want = append(want, "parameters["+c.parameter+"]: Invalid value: "+strconv.Quote(c.value)+": "+fault)
			}
			if _, faults := class(c.parameter, c.value); !slices.Equal(faults, want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(faults, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestTemplatesThatDiffer(t *testing.T) {
	const differs = ": means the same as subDir, which has another value: give one of them"
	for name, c := range map[string]struct{ subDir, pathPattern string }{
		"text":     {"a", "b"},
		"key":      {"${pvc.metadata.labels['a']}", "${.PVC.labels.b}"},
		"kind":     {"${pvc.metadata.labels['a']}", "${.PVC.annotations.a}"},
		"variable": {"${pvc.metadata.name}", "${.PVC.namespace}"},
		"longer":   {"${pvc.metadata.name}", "${.PVC.name}-x"},
	} {
		_, faults := class("subDir", c.subDir, "pathPattern", c.pathPattern)
		if want := "parameters[pathPattern]: Invalid value: " + strconv.Quote(c.pathPattern) + differs; !slices.Equal(faults, []string{want}) {
			t.Errorf("%s: got %q, want %q", name, faults, want)
		}
	}
}
