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
		if s.dirs[at] == nil {
			return fmt.Errorf("%s is not there: %w", at.SubDir, otherShare(""))
		}
		s.ids[at.Share] = "id-of-" + at.Share.String()
	}
	for other, record := range s.records {
		there, here := string(other.SubDir)+"/", string(at.SubDir)+"/"
		if other.Share == at.Share && record.Owner != target.Owner && (strings.HasPrefix(here, there) || strings.HasPrefix(there, here)) {
			return conflict("%s belongs to the volume %s", other.SubDir, record.Owner.Volume)
		}
	}
	return nil
}
