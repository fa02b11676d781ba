package dirs

import (
	"cmp"
	"slices"
	"time"

	"sharevol.dev/sharevol/internal/volume"
)

// Survey asks what is on a share.
type Survey struct {
	// Cluster is the one whose records are ours; those of others speak for others.
	Cluster string
	// Volumes are the directories of volumes that are to be there.
	Volumes []volume.SubDir
	// Others are further directories that something names, whose absence is nobody's
	// concern. The empty one is the share root: then all that has no record of ours
	// belongs to whatever names it.
	Others []volume.SubDir
	// Limit bounds each list of the answer. 1000 when zero, which is also the most.
	Limit int
	// Time is for looking, a minute when zero; SizeTime for adding up sizes after that,
	// none when zero. What could not be done by then is told.
	Time, SizeTime time.Duration
}

// Surveyed is what a Survey came to. Each list is sorted, and has a count of what it
// leaves out.
type Surveyed struct {
	Missing         []Missing
	Orphans         []Orphan
	Archives, Trash []Kept

	MoreMissing, MoreOrphans, MoreArchives, MoreTrash int

	// Foreign counts the directories that records of other clusters speak for.
	Foreign int
	// Unread are the first places that could not be read, and why. MoreUnread counts
	// the others.
	Unread     []string
	MoreUnread int
	// Cut says that the time was over before everything was looked at.
	Cut bool
}

// Missing is a volume whose directory is not there.
type Missing struct {
	SubDir volume.SubDir
	// Why is empty, or says what is in its place.
	Why string
}

// Orphan is a directory that nothing names. The root of another share is none.
type Orphan struct {
	Path string
	// Volume is whose it was by a record of this cluster; empty without one. Then it is
	// somebody's data.
	Volume string
	// Changed is when an entry of the directory itself last came or went.
	Changed time.Time
}

// Kept is an archive, or what is in the trash.
type Kept struct {
	Path string
	// Volume is what the trash or a record says that it was; may be empty.
	Volume string
	// Owner is OwnerThis or OwnerOther if a record says which cluster's it is.
	Owner string
	// Since is when it was moved there, or changed later.
	Since time.Time
	Size  Size
}

// Whose something is.
const (
	OwnerThis  = "this cluster"
	OwnerOther = "another cluster"
)

func (s *survey) missing(m Missing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.found.Missing, &s.found.MoreMissing, s.ask.Limit, m)
}

func (s *survey) orphan(o Orphan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.found.Orphans, &s.found.MoreOrphans, s.ask.Limit, o)
}

func (s *survey) archive(k Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.found.Archives, &s.found.MoreArchives, s.ask.Limit, k)
}

func (s *survey) trash(k Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.found.Trash, &s.found.MoreTrash, s.ask.Limit, k)
}

func (s *survey) foreign() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found.Foreign++
}

func add[T any](list *[]T, more *int, limit int, item T) {
	if len(*list) < limit {
		*list = append(*list, item)
	} else {
		*more++
	}
}

// answer returns what was found, sorted.
func (s *survey) answer() Surveyed {
	slices.SortFunc(s.found.Missing, func(a, b Missing) int { return cmp.Compare(a.SubDir, b.SubDir) })
	slices.SortFunc(s.found.Orphans, func(a, b Orphan) int { return cmp.Compare(a.Path, b.Path) })
	for _, list := range [][]Kept{s.found.Archives, s.found.Trash} {
		slices.SortFunc(list, func(a, b Kept) int { return cmp.Compare(a.Path, b.Path) })
	}
	slices.Sort(s.found.Unread)
	return s.found
}
