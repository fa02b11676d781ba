package check

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/share/dirs"
)

const (
	// lowSpace is the part of a share's space, and of its inodes, below which they are
	// called low: one in so many.
	lowSpace = 20
	// slowRemoval is how long a directory may be in the trash without a change.
	slowRemoval = time.Hour
	// volumePrefix begins the names of provisioned volumes; the UID of the claim follows.
	volumePrefix = "pvc-"
)

// describe adds to the report what the share is like.
func (s *shareState) describe() {
	d, r := s.description, s.report
	of, _ := fs.Types.Lookup(s.share.Type) // or it would not have been mounted
	r.NFSVersion, r.ID = of.Version(d.MountOptions), d.ShareID
	r.Bytes, r.FreeBytes, r.Inodes, r.FreeInodes = d.Space.Bytes, d.Space.FreeBytes, d.Space.Inodes, d.Space.FreeInodes
	if r.Premounted != "" && d.Magic != of.Magic {
		s.fault("%s is not on a share of type %s: nothing seems to be mounted there", r.Premounted, of.Name)
	}
	if d.Fault != "" {
		s.fault("what sharevol keeps on the share can't be read: %s", d.Fault)
	}
	if d.Space.FreeBytes < d.Space.Bytes/lowSpace {
		s.fault("less than %d %% of its space is free", 100/lowSpace)
	}
	if d.Space.FreeInodes < d.Space.Inodes/lowSpace {
		s.fault("less than %d %% of its inodes are free", 100/lowSpace)
	}
}

// checkIDs holds the share's id against the ones that the volumes were made with.
func (s *shareState) checkIDs(state *state) {
	other := map[string]int{}
	for _, v := range state.volumes {
		if v.ours != nil && v.ours.Share == s.share && v.shareID != "" && v.shareID != s.description.ShareID {
			other[v.shareID]++
		}
	}
	has := "has the id " + s.description.ShareID
	if s.description.ShareID == "" {
		has = "has no id"
	}
	for _, id := range slices.Sorted(maps.Keys(other)) {
		s.fault("the share %s, and %s made when it had %s: another file system seems to be exported in its place", has, count(other[id], "volume was", "volumes were"), id)
	}
}

// confirm adds to the report what was found on the shares. The provisioner works on
// meanwhile: what looked wrong is held against a cluster that is read anew.
func (c *check) confirm(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	now, err := c.read(bounded)
	if err != nil {
		c.problem("what was found on the shares could not be held against the cluster: %w", err)
		return
	}
	c.servers.lookUp(bounded, now, c.options.LookupHost)
	if unknown := c.servers.unknown(); len(unknown) > 0 {
		c.problem("servers that can't be looked up, and may be any other: %s", strings.Join(unknown, ", "))
	}
	for _, s := range c.looked {
		if !s.report.Reachable {
			continue
		}
		s.checkIDs(now)
		if s.found != nil {
			c.conclude(s, now)
		}
	}
}

// conclude adds to the report what was found on one share.
func (c *check) conclude(s *shareState, now *state) {
	c.concludeMissing(s, now)
	c.concludeOrphans(s, now)
	s.concludeKept(now, c.options.Now())
	s.report.OtherClusters = s.found.Foreign
	for _, unread := range s.found.Unread {
		s.fault("could not be read: %s", unread)
	}
	if n := s.found.MoreUnread; n > 0 {
		s.fault("%s could not be read either", count(n, "more place", "more places"))
	}
	if s.found.Cut {
		s.fault("not all of it was looked at: after %v it was cut off", lookTimeout)
	}
}

func (c *check) concludeMissing(s *shareState, now *state) {
	before, after := s.expected(c.state), s.expected(now)
	for _, m := range s.found.Missing {
		for _, name := range before[m.SubDir] {
			if slices.Contains(after[m.SubDir], name) {
				s.report.Missing = append(s.report.Missing, Missing{Volume: name, SubDir: string(m.SubDir), Why: m.Why})
			}
		}
	}
	s.report.NotListed.Missing = s.found.MoreMissing
	if n := len(s.report.Missing) + s.found.MoreMissing; n > 0 {
		s.fault("%s not there", count(n, "directory of a volume is", "directories of volumes are"))
	}
}

func (c *check) concludeOrphans(s *shareState, now *state) {
	named, volumes := s.named(now, c.servers), now.volumeNames()
	for _, o := range s.found.Orphans {
		uid := strings.TrimPrefix(o.Volume, volumePrefix)
		switch {
		case namedAt(named, o.Path):
		case o.Volume != "" && (volumes[o.Volume] || c.state.claims[uid] || now.claims[uid]): // being made
		default:
			s.report.Orphans = append(s.report.Orphans, Orphan{Path: o.Path, Volume: o.Volume, Changed: o.Changed.UTC()})
		}
	}
	s.report.NotListed.Orphans = s.found.MoreOrphans
	if n := len(s.report.Orphans) + s.found.MoreOrphans; n > 0 {
		s.fault("no volume names %s", count(n, "directory", "directories"))
	}
}

// namedAt says whether something names the path, or one below it.
func namedAt(named map[string]bool, path string) bool {
	for name := range named {
		if name == path || strings.HasPrefix(name, path+"/") {
			return true
		}
	}
	return false
}

// concludeKept adds archives and the trash. Only what nobody will remove from the
// trash, or has not removed for long, needs attention.
func (s *shareState) concludeKept(now *state, at time.Time) {
	for _, k := range s.found.Archives {
		s.report.Archives = append(s.report.Archives, newKept(k))
	}
	volumes, left, slow := now.volumeNames(), 0, 0
	for _, k := range s.found.Trash {
		if k.Owner == dirs.OwnerOther && !volumes[k.Volume] {
			s.found.Foreign++
			continue
		}
		s.report.Trash = append(s.report.Trash, newKept(k))
		switch {
		case !volumes[k.Volume]:
			left++
		case at.Sub(k.Since) > slowRemoval:
			slow++
		}
	}
	s.report.NotListed.Archives, s.report.NotListed.Trash = s.found.MoreArchives, s.found.MoreTrash
	if left > 0 {
		s.fault("%s of no volume, and nobody will remove it", count(left, "directory in the trash is", "directories in the trash are"))
	}
	if slow > 0 {
		s.fault("%s not changed for more than an hour: see the events of the volume", count(slow, "directory in the trash has", "directories in the trash have"))
	}
}

func newKept(k dirs.Kept) Kept {
	return Kept{Path: k.Path, Volume: k.Volume, Since: k.Since.UTC(), Bytes: k.Size.Bytes, Files: k.Size.Files, Cut: k.Size.Cut}
}
