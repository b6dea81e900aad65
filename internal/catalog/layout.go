package catalog

import (
	"fmt"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
)

// The areas of the store. docs/formats/store.md draws the layout.
const (
	dataArea        = "data/"
	predictionsArea = "predictions/"
	logsArea        = "logs/"
	// ModelsArea is the prefix of the folders that hold models.
	ModelsArea = fleet.ModelsArea

	coverageName = "/_coverage"
	lateName     = "/_late/"
	stateName    = "/_state/"
	outputName   = "/_output/"
	codeName     = "/_code/"
	imagesName   = "/_images/"
	nodesFolder  = "nodes" // among the logs
)

// DatasetFolder is the folder of a dataset's table.
func DatasetFolder(dataset string) string { return dataArea + dataset }

// PredictionsFolder is the folder of the table with a pipeline's predictions.
func PredictionsFolder(pipeline string) string { return predictionsArea + pipeline }

// CoverageFolder is the folder of the table with the outcomes of a pipeline's
// jobs. It lies in the folder of its predictions.
func CoverageFolder(pipeline string) string { return PredictionsFolder(pipeline) + coverageName }

// Output is a blob of the folder that a command left in an attempt at a task.
func Output(pipeline string, job fleetscore.JobID, task, attempt int, file string) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%s%03d/%d/%s", JobOutput(pipeline, job), task, attempt, file))
}

// JobOutput is the prefix of the blobs that a job's commands left.
func JobOutput(pipeline string, job fleetscore.JobID) string {
	return PredictionsFolder(pipeline) + outputName + string(job) + "/"
}

// CodeFolder is what the names of a pipeline's archives of code begin with.
func CodeFolder(pipeline string) string { return PredictionsFolder(pipeline) + codeName }

// Code is the blob with an archive of code for a pipeline's jobs.
func Code(pipeline string, d fleetscore.Digest) fleetscore.BlobName {
	return fleetscore.BlobName(CodeFolder(pipeline) + d.String() + ".zip")
}

// IsOutput reports whether a blob is one that a job's commands may leave.
func IsOutput(name, pipeline string, job fleetscore.JobID) bool {
	return strings.HasPrefix(name, JobOutput(pipeline, job))
}

// InTableLog reports whether a blob of the store lies in the log of a table.
func InTableLog(name fleetscore.BlobName) bool {
	return strings.Contains(string(name), "/_delta_log/")
}

// PackFolder is the folder of a fleet's packs.
func PackFolder(fleetName string) string { return fleet.PackPath(fleetName) }

// LateFolder is the prefix of the blobs with readings that came too late for a dataset.
func LateFolder(dataset string) string { return DatasetFolder(dataset) + lateName }

// LateFile is a blob with readings that came too late for a dataset, by its name in LateFolder.
func LateFile(dataset, file string) fleetscore.BlobName {
	return fleetscore.BlobName(LateFolder(dataset) + file)
}

// LateReadings is the blob with readings that came too late for a dataset. They
// came with the messages first to last of a partition of the hub, as the dataset's
// query counts them.
func LateReadings(dataset string, partition int, first, last uint64) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%sp%03d-%d-%d.ndjson", LateFolder(dataset), partition, first, last))
}

// Sensors is the blob with what is known of the sensors of a dataset.
func Sensors(dataset string) fleetscore.BlobName {
	return fleetscore.BlobName(DatasetFolder(dataset) + "/_sensors.bin")
}

// QueryState is the blob with the state of a dataset's query after a message, as the query counts
// messages. of names the partition of the hub that was read (p000), or says all.
func QueryState(dataset, of string, position int64) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%s%s-%d.bin", QueryStateFolder(dataset), of, position))
}

// QueryStateFolder is what the names of those states begin with.
func QueryStateFolder(dataset string) string { return DatasetFolder(dataset) + stateName }

// TaskLog is the blob with one stream (stdout or stderr) of an attempt at a task.
func TaskLog(j fleetscore.Job, task, attempt int, stream string) fleetscore.BlobName {
	form := "%s%03d/%d/%s.txt"
	if j.Config.Logs.Layout == fleetscore.LogsFlat {
		form = "%s%03d-%d-%s.txt"
	}
	return fleetscore.BlobName(fmt.Sprintf(form, jobLogs(j.Pipeline, j.ID), task, attempt, stream))
}

// timingName is what the names of a job's timing files begin with.
const timingName = "timing-"

// Timing is the blob that says how long the models took in an attempt at a task.
func Timing(pipeline string, job fleetscore.JobID, task, attempt int) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%s%s%03d-%d.parquet", jobLogs(pipeline, job), timingName, task, attempt))
}

// JobTiming is the blob that Timing's blobs of a job are joined to.
func JobTiming(pipeline string, job fleetscore.JobID) fleetscore.BlobName {
	return fleetscore.BlobName(jobLogs(pipeline, job) + "timing.parquet")
}

// IsTiming reports whether a blob is a timing file of a job's attempt.
func IsTiming(name, pipeline string, job fleetscore.JobID) bool {
	base, ok := strings.CutPrefix(name, jobLogs(pipeline, job)+timingName)
	return ok && !strings.Contains(base, "/")
}

// jobLogs is the prefix of all logs of a job.
func jobLogs(pipeline string, job fleetscore.JobID) string {
	return logsArea + pipeline + "/" + string(job) + "/"
}

// NodeLog is the blob with what a node wrote itself.
func NodeLog(pool string, node fleetscore.NodeID) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%s%s/%s/%s.txt", logsArea, nodesFolder, pool, node))
}

// NodeOutput is the blob with what was printed by the process or the commands that a
// provider ran for a node.
func NodeOutput(pool string, node fleetscore.NodeID) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("%s%s/%s/%s.output.txt", logsArea, nodesFolder, pool, node))
}

// CheckDataset refuses names of datasets that fleet.yaml can't hold either: they
// become part of the names of blobs.
func CheckDataset(name string) error {
	ok := name != "" && len(name) <= 100 && name[0] >= 'a' && name[0] <= 'z'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if !ok {
		return fleetscore.Errorf(fleetscore.Invalid, "check dataset name", name, "the name may have a to z, 0 to 9, - and _ only, and starts with a letter")
	}
	return nil
}
