package fakeshare

import (
	"fmt"
	"strings"

	"sharevol.dev/sharevol/internal/share/dirs"
	"sharevol.dev/sharevol/internal/volume"
)

// takeOver returns why a directory of another provisioner can't be taken away, if
// there is a reason.
func (s *Shares) takeOver(at volume.Directory, target dirs.Target) error {
	if s.ids[at.Share] == "" {
		if !s.there(at) {
			return fmt.Errorf("%s is not there: %w", at.SubDir, otherShare(""))
		}
		s.ids[at.Share] = "id-of-" + at.Share.String()
	}
	record, recorded := s.records[at]
	switch {
	case recorded && record.Owner != target.Owner:
		return conflict("%s belongs to the volume %s", at.SubDir, record.Owner.Volume)
	case recorded && record.Retain:
		return conflict("%s was made to be retained, and other volumes may use it: left as it is", at.SubDir)
	case !s.there(at):
		return nil
	}
	for other, record := range s.records {
		there, here := string(other.SubDir)+"/", string(at.SubDir)+"/"
		if other.Share == at.Share && record.Owner != target.Owner && (strings.HasPrefix(here, there) || strings.HasPrefix(there, here)) {
			return conflict("%s belongs to the volume %s", other.SubDir, record.Owner.Volume)
		}
	}
	return nil
}

// there says whether there is a directory at at, or one below it.
func (s *Shares) there(at volume.Directory) bool {
	for other := range s.dirs {
		if other.Share == at.Share && strings.HasPrefix(string(other.SubDir)+"/", string(at.SubDir)+"/") {
			return true
		}
	}
	return false
}
