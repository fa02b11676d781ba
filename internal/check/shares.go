package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"sharevol.dev/sharevol/internal/cluster"
	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/share"
	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// mostWays is how many ways of mounting one share are tried.
const mostWays = 4

// way is one way to mount a share.
type way struct {
	of      string // the class or volume that says so
	options []string
	key     string // equal for equal ways
	ref     func(context.Context) (share.Ref, error)
}

// shareState is a share and what was found out about it.
type shareState struct {
	share       volume.Share
	ways        []way
	description dirs.Description
	tried       bool // whether there was a way to mount it
	found       *dirs.Surveyed
	report      *Share
}

func (s *shareState) fault(format string, args ...any) {
	s.report.Faults = append(s.report.Faults, fmt.Sprintf(format, args...))
}

// count returns a number with the words for one or several of what is counted.
func count(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

// addWay adds a way that the provisioner would take. Of one with other options, the class
// or the volume says what is wrong with it.
func (s *shareState) addWay(w way) {
	if len(fs.Types.Options(s.share).CheckAll(w.options, nil)) > 0 {
		return
	}
	if len(s.ways) < mostWays && !slices.ContainsFunc(s.ways, func(other way) bool { return other.key == w.key }) {
		s.ways = append(s.ways, w)
	}
}

// shares returns the shares that classes and volumes of the provisioner's name and
// that it serves, in order.
func (c *check) shares(serves func(volume.Share) bool) []*shareState {
	all := map[volume.Share]*shareState{}
	add := func(s volume.Share, w way) {
		if s == (volume.Share{}) || !serves(s) {
			return
		}
		if all[s] == nil {
			all[s] = &shareState{share: s, report: newShare(s, c.options.Premounted[s])}
		}
		all[s].addWay(w)
	}
	for _, state := range c.state.classes {
		w := way{of: "class " + state.object.Name + " says", options: state.class.MountOptions, key: "class " + strings.Join(state.class.MountOptions, ",")}
		w.ref = func(context.Context) (share.Ref, error) { return classRef(state.class) }
		if state.class.ProvisionerSecret == nil {
			w.key = strings.TrimPrefix(w.key, "class ")
		}
		add(state.class.Share, w)
	}
	for _, state := range c.state.volumes {
		if state.ours == nil {
			continue
		}
		options := state.ours.MountOptions
		w := way{of: "volume " + state.name + " says", options: options, key: strings.Join(options, ",") + secretOf(state.object)}
		w.ref = func(ctx context.Context) (share.Ref, error) {
			options, err := cluster.MountOptions(ctx, c.options.Client, state.ours.Share, options, cluster.DeletionSecret(state.object))
			return share.Ref{Share: state.ours.Share, MountOptions: options}, err
		}
		add(state.ours.Share, w)
		if s := all[state.ours.Share]; s != nil {
			s.report.Volumes++
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *shareState) int { return cmp.Compare(a.report.Share, b.report.Share) })
}

// errSecretPerClaim says that a class does not tell how its share is mounted.
var errSecretPerClaim = errors.New("its mount options come from a secret, which may be another one for each claim")

// classRef returns how the share of a class is mounted.
func classRef(class volume.Class) (share.Ref, error) {
	ref := share.Ref{Share: class.Share, MountOptions: class.MountOptions}
	if class.ProvisionerSecret != nil {
		return ref, errSecretPerClaim
	}
	return ref, nil
}

// secretOf names the secret that mounting for a volume takes, empty for none.
func secretOf(pv *v1.PersistentVolume) string {
	if secret := cluster.DeletionSecret(pv); secret != nil {
		return secret.Namespace + "/" + secret.Name
	}
	return ""
}

// below returns the path of d relative to the root of s, empty for the root itself,
// and whether it may be there at all.
func (all servers) below(s volume.Share, d volume.Directory) (string, bool) {
	if !all.maySame(s.Server, d.Share.Server) {
		return "", false
	}
	root, full := path.Clean(s.Path), d.Full()
	switch {
	case full == root:
		return "", true
	case root == "/":
		return strings.TrimPrefix(full, "/"), true
	case strings.HasPrefix(full, root+"/"):
		return strings.TrimPrefix(full, root+"/"), true
	}
	return "", false
}

// place returns where on the share s the data of a volume is: by its server and path,
// or by the id of the share, which it may have under another name. The root of s is
// the empty place, also for a volume of a directory above it.
func (s *shareState) place(v volumeState, servers servers) (string, bool) {
	if !v.located {
		return "", false
	}
	if at, here := servers.below(s.share, v.directory); here {
		return at, true
	}
	if v.shareID != "" && v.shareID == s.description.ShareID {
		return strings.Trim(string(v.directory.SubDir), "/"), true
	}
	if _, above := servers.below(volume.Share{Server: v.directory.Share.Server, Path: v.directory.Full()}, volume.Directory{Share: s.share}); above {
		return "", true
	}
	return "", false
}

// expected returns the volumes of state whose directories must be on s, by place.
func (s *shareState) expected(state *state) map[volume.SubDir][]string {
	places := map[volume.SubDir][]string{}
	for _, v := range state.volumes {
		if v.ours == nil || v.leaving || v.ours.Share != s.share {
			continue
		}
		if dir, err := volume.ParseSubDir(string(v.ours.SubDir)); err == nil {
			places[dir] = append(places[dir], v.name)
		}
	}
	return places
}

// named returns all places on s that something names: volumes of any driver, and the
// roots of other shares further down.
func (s *shareState) named(state *state, servers servers) map[string]bool {
	names := map[string]bool{}
	shares := map[volume.Share]bool{}
	for _, v := range state.volumes {
		if at, here := s.place(v, servers); here {
			names[at] = true
		}
		if v.ours != nil {
			shares[v.ours.Share] = true
		}
	}
	for _, class := range state.classes {
		shares[class.class.Share] = true
	}
	for other := range shares {
		if at, here := servers.below(s.share, volume.Directory{Share: other}); here && at != "" {
			names[at] = true
		}
	}
	return names
}

// ask returns what to look for on s.
func (c *check) ask(s *shareState) dirs.Survey {
	ask := dirs.Survey{Cluster: c.cluster, Time: lookTimeout, SizeTime: c.options.SizeTime}
	ask.Volumes = slices.Sorted(maps.Keys(s.expected(c.state)))
	for at := range s.named(c.state, c.servers) {
		ask.Others = append(ask.Others, volume.SubDir(at))
	}
	return ask
}
