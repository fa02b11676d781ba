// Package docs tests the repository's Markdown files.
package docs

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	codeSpan  = regexp.MustCompile("`[^`\n]*`")
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*?) *$`)
)

// A link that leads nowhere is found by readers only. Other sites are not asked.
func TestRelativeLinks(t *testing.T) {
	repository := os.DirFS("..")
	files := markdown(t, repository)
	if !slices.Contains(files, "README.md") || !slices.Contains(files, "docs/architecture.md") {
		t.Fatalf("these are not all: %q", files)
	}
	for _, file := range files {
		for _, broken := range brokenLinks(t, repository, file) {
			t.Errorf("%s: %s", file, broken)
		}
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	site := t.TempDir()
	for name, text := range map[string]string{
		"a.md": "[1](b.md) [2](b.md#two-words-1) [3](#top) [4](https://example.com/x) `[5](code.md)`\n```\n[6](code.md)\n```\n# Top\n",
		"b.md": "# Two `words`!\n# Two words\n[1](c.md) [2](a.md#none)\n[3](#gone) [4](../a.md)\n",
	} {
		if err := os.WriteFile(path.Join(site, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]int{"a.md": 0, "b.md": 4} {
		if got := brokenLinks(t, os.DirFS(site), file); len(got) != want {
			t.Errorf("%s: %d broken links, want %d: %q", file, len(got), want, got)
		}
	}
}

// markdown returns all Markdown files, without those in hidden folders.
func markdown(t *testing.T, repository fs.FS) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(repository, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case path.Ext(name) == ".md":
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func brokenLinks(t *testing.T, repository fs.FS, file string) []string {
	t.Helper()
	var broken []string
	for _, found := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(read(t, repository, file), ""), -1) {
		target, err := url.Parse(found[1])
		if err != nil || target.Scheme != "" {
			continue
		}
		to := file
		if target.Path != "" {
			to = path.Join(path.Dir(file), target.Path)
		}
		if _, err := fs.Stat(repository, to); err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", found[1], err))
		} else if target.Fragment != "" && !slices.Contains(anchors(read(t, repository, to)), target.Fragment) {
			broken = append(broken, fmt.Sprintf("%s: %s has no such heading", found[1], to))
		}
	}
	return broken
}

// read returns a file without its code blocks.
func read(t *testing.T, repository fs.FS, file string) string {
	t.Helper()
	text, err := fs.ReadFile(repository, file)
	if err != nil {
		t.Fatal(err)
	}
	return codeBlock.ReplaceAllString(string(text), "")
}

// anchors returns what GitHub makes of the headings.
func anchors(text string) []string {
	var all []string
	for _, found := range heading.FindAllStringSubmatch(text, -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, found[1])
		for unique, n := anchor, 1; ; unique, n = fmt.Sprintf("%s-%d", anchor, n), n+1 {
			if !slices.Contains(all, unique) {
				all = append(all, unique)
				break
			}
		}
	}
	return all
}
