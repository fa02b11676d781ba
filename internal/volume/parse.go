package volume

import (
	"errors"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxServer is the length limit of a DNS name (RFC 1035, 2.3.4).
const maxServer = 253

// maxPath keeps share and subDir, joined and below a mount point, within
// Linux's PATH_MAX of 4096 bytes.
const maxPath = 1024

// maxComponent is Linux's NAME_MAX, in bytes.
const maxComponent = 255

// reservedPrefix begins the names that sharevol keeps for itself on a share.
const reservedPrefix = ".sharevol"

// The first character is never '-', so that no server reads as an option of mount(8).
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$`)

// ParseServer reads a server: a host name, an IPv4 address, or an IPv6 address
// bare or in brackets. The result has no brackets, and an address is in its canonical form.
func ParseServer(value string) (string, error) {
	bare := value
	if strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]") {
		bare = value[1 : len(value)-1]
		if addr, err := netip.ParseAddr(bare); err != nil || !addr.Is6() {
			return "", errors.New("brackets must enclose an IPv6 address")
		}
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("an IPv6 address with a zone means something else on each node: use one without")
		}
		return addr.String(), nil
	}
	if len(value) > maxServer || !hostName.MatchString(value) {
		return "", errors.New("must be a host name, an IPv4 address or an IPv6 address")
	}
	return value, nil
}

// ParseSharePath reads an exported path: absolute, "/" allowed. Repeated and
// trailing slashes are dropped. Its error names every fault.
func ParseSharePath(value string) (string, error) {
	var faults pathFaults
	if !strings.HasPrefix(value, "/") {
		faults.add("must be an absolute path on the server, for example /srv/volumes")
	}
	for _, component := range strings.Split(value, "/") {
		// Empty components only repeat a slash, which means nothing here.
		if component != "" {
			faults.check(component)
		}
	}
	if err := faults.err(value); err != nil {
		return "", err
	}
	return path.Clean(value), nil
}

// ParseSubDir reads the path of a volume directory. It refuses whatever could
// name another place than one directory strictly below the share root, and the
// names that sharevol keeps for itself. Its error names every fault.
func ParseSubDir(value string) (SubDir, error) {
	if value == "" {
		return "", errors.New("must not be empty")
	}
	var faults pathFaults
	relative := strings.TrimLeft(value, "/")
	if relative != value {
		faults.add("must be relative to the share root, without a leading slash")
	}
	for _, component := range strings.Split(relative, "/") {
		switch {
		case component != "":
			faults.check(component)
		case relative != "":
			faults.add("must not have an empty path component")
		}
	}
	if err := faults.err(value); err != nil {
		return "", err
	}
	return SubDir(value), nil
}

// pathFaults collects what is wrong with a path, each kind of fault once.
type pathFaults []string

func (f *pathFaults) add(fault string) {
	if !slices.Contains(*f, fault) {
		*f = append(*f, fault)
	}
}

// check adds what is wrong with one component of the path.
func (f *pathFaults) check(component string) {
	if component == "." || component == ".." {
		f.add(`must not have a "." or ".." path component`)
	}
	if strings.HasPrefix(component, reservedPrefix) {
		// At every level: the root of another share may be further down.
		f.add("must not have a path component that begins with " + reservedPrefix + ", which sharevol keeps for itself")
	}
	if strings.ContainsAny(component, `\#`) {
		f.add("must not contain a backslash or #")
	}
	if !utf8.ValidString(component) {
		f.add("must be valid UTF-8")
	}
	if strings.ContainsFunc(component, breaksLines) {
		f.add("must not contain a control character")
	}
	if len(component) > maxComponent {
		f.add("must not have a path component longer than 255 bytes")
	}
}

// err returns all that is wrong with value in one error, nil if nothing is.
func (f *pathFaults) err(value string) error {
	if len(value) > maxPath {
		f.add("must not be longer than 1024 bytes")
	}
	if len(*f) == 0 {
		return nil
	}
	return errors.New(strings.Join(*f, " and "))
}

// breaksLines is true for control characters, and for the two of Unicode that
// separate lines without being one.
func breaksLines(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }

// visible returns a name as it is, or quoted if it would break a message's line.
func visible(name string) string {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, breaksLines) {
		return strconv.Quote(name)
	}
	return name
}
