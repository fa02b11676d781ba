package volume

import (
	"errors"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"unicode"
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
// trailing slashes are dropped.
func ParseSharePath(value string) (string, error) {
	if !strings.HasPrefix(value, "/") {
		return "", errors.New("must be an absolute path on the server, for example /srv/volumes")
	}
	for _, component := range strings.Split(value, "/") {
		// Empty components only repeat a slash, which means nothing here.
		if component == "" {
			continue
		}
		if err := checkComponent(component); err != nil {
			return "", err
		}
	}
	if len(value) > maxPath {
		return "", errors.New("must not be longer than 1024 bytes")
	}
	return path.Clean(value), nil
}

// ParseSubDir reads the path of a volume directory. It refuses whatever could
// name another place than one directory strictly below the share root, and the
// names that sharevol keeps for itself.
func ParseSubDir(value string) (SubDir, error) {
	if value == "" {
		return "", errors.New("must not be empty")
	}
	if strings.HasPrefix(value, "/") {
		return "", errors.New("must be relative to the share root, without a leading slash")
	}
	for _, component := range strings.Split(value, "/") {
		if component == "" {
			return "", errors.New("must not have an empty path component")
		}
		if err := checkComponent(component); err != nil {
			return "", err
		}
	}
	if strings.HasPrefix(value, reservedPrefix) {
		return "", errors.New("must not begin with " + reservedPrefix + ", which sharevol keeps for itself")
	}
	if len(value) > maxPath {
		return "", errors.New("must not be longer than 1024 bytes")
	}
	return SubDir(value), nil
}

// checkComponent says what is wrong with one component of a path, if anything.
func checkComponent(component string) error {
	switch {
	case component == "." || component == "..":
		return errors.New(`must not have a "." or ".." path component`)
	case strings.ContainsAny(component, `\#`):
		return errors.New("must not contain a backslash or #")
	case strings.ContainsFunc(component, unicode.IsControl):
		return errors.New("must not contain a control character")
	case len(component) > maxComponent:
		return errors.New("must not have a path component longer than 255 bytes")
	}
	return nil
}
