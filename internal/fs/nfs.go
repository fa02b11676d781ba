package fs

import (
	"path"
	"strings"
	"syscall"

	"sharevol.dev/sharevol/internal/volume"
)

// nfs is NFS of all versions, with the Linux kernel's client and mount.nfs of nfs-utils.
var nfs = Type{
	Name:          "nfs",
	Parameters:    []string{volume.AttrServer, volume.AttrShare},
	Share:         volume.ServerAndShare,
	FSTypes:       []string{"nfs", "nfs4"},
	Magic:         0x6969, // NFS_SUPER_MAGIC of linux/magic.h
	VersionOption: "vers",
	// A share's text is what mount.nfs takes: SERVER:/PATH, an IPv6 address in brackets.
	Source: func(s volume.Share, dir volume.SubDir) string {
		s.Path = path.Join(s.Path, string(dir))
		return s.String()
	},
	// The path alone is compared: where two names of one server share a superblock, the
	// kernel shows every mount of it under the name that came first.
	Shows: func(shown, source string) bool {
		got, want := pathOnServer(shown), pathOnServer(source)
		return got != "" && got == want
	},
	// mount.nfs takes the options and does all of the work, in two thirds of mount(8)'s time.
	Helper: "mount.nfs",
	// The directory was deleted on the server, or its export removed.
	Stale: syscall.ESTALE,
	Options: OptionRules{
		// Each names another server than the source does.
		Refused: []string{"addr", "mountaddr", "mounthost"},
		// mount.nfs then reports the first failure instead of trying again for minutes, and
		// never tries in the background, where no deadline of ours would reach it.
		Always: []string{"fg", "retry=0"},
		// Calls to a dead server fail in the end. Writing file data softly would be unsafe;
		// the provisioner writes none.
		Provisioner: []string{"soft", "timeo=100", "retrans=2"},
	},
}

// pathOnServer returns the path of a source, clean, or "" if it has none.
func pathOnServer(source string) string {
	_, after, found := strings.Cut(source, ":/")
	if !found {
		return ""
	}
	return path.Clean("/" + after)
}
