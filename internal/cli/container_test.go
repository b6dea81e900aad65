package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// containerFiles are what the image of TestContainers holds besides Python and its packages.
var containerFiles = map[string]string{
	// setup.py leaves a file that no task may read.
	"setup.py": "import os\nopen('/tmp/other-job.txt', 'w').write('rows of another job')\nos.chmod('/tmp/other-job.txt', 0o644)\nprint('set up by', os.getuid())\n",
	"score.py": "import pickle, sys\ndef run(model, rows):\n    print('scored in', sys.prefix)\n    return (model.predict(rows[['Value']].to_numpy()) == -1).astype(float)\n",
	// start.py says where the folders lie, as a container of the reference's did by a file.
	"start.py": `import json, os, subprocess, sys
config = os.environ['AZ_BATCHAI_JOB_TEMP'] + '/config.json'
with open(config, 'w') as f:
    json.dump({'data': os.environ['AZ_BATCHAI_INPUT_DATA'], 'models': os.environ['AZ_BATCHAI_INPUT_MODELS'], 'predictions': os.environ['AZ_BATCHAI_OUTPUT_PREDICTIONS']}, f)
history, results = os.environ['FLEETSCORE_MOUNT_HISTORY'], os.environ['FLEETSCORE_MOUNT_RESULTS']
with open(results + '/%s_%s' % (sys.argv[1], sys.argv[2]), 'w') as f:
    f.write(open(history + '/limits.txt').read())
try:
    open(history + '/written', 'w')
    sys.exit('could write into a mount that is only to read')
except OSError:
    pass
sys.exit(subprocess.call([sys.executable, '/app/predict.py', sys.argv[1], sys.argv[2], config]))
`,
	// bundle.py scores all sensors of its task.
	"bundle.py": `import os, pickle
import pandas as pd
rows = pd.read_csv(os.environ['AZ_BATCHAI_INPUT_DATA'] + '/readings.csv', dtype={'Device': str, 'Tag': str})
for (device, tag), r in rows.groupby(['Device', 'Tag']):
    with open('%s/model_%s_%s' % (os.environ['AZ_BATCHAI_INPUT_MODELS'], device, tag), 'rb') as f:
        rows.loc[r.index, 'Prediction'] = pickle.load(f).predict(r[['Value']].to_numpy()) == -1
rows['Prediction'] = rows['Prediction'].astype(int)
rows.rename(columns={'Value': 'Val'}).to_csv(os.environ['AZ_BATCHAI_OUTPUT_PREDICTIONS'] + '/preds.csv', index=False)
`,
	// age.py says which image it is in.
	"age.py":     "def run(model, rows):\n    print('scored in the image', open('/app/age.txt').read())\n    return (model.predict(rows[['Value']].to_numpy()) == -1).astype(float)\n",
	"age.txt":    "of today",
	"predict.py": predictScript,
	// hostile.py tries what a task must not do, and says how it went.
	"hostile.py": `import glob, os, signal, socket, subprocess, sys, time

def attempt(what, f):
    try:
        f()
        print('could', what, flush=True)
    except BaseException as e:
        print("couldn't", what + ':', type(e).__name__, e, flush=True)

def read(*names):
    def f():
        errors = []
        for name in names:
            for path in glob.glob(name) or [name]:
                try:
                    with open(path, 'rb') as g:
                        if g.read():
                            return
                except OSError as e:
                    errors.append(e)
        raise errors[0] if errors else OSError('nothing is there')
    return f

def connect(kind, address):
    def f():
        s = socket.socket(kind, socket.SOCK_STREAM)
        s.settimeout(2)
        s.connect(address)
    return f

def fill(folder):
    with open(folder + '/full', 'wb') as f:
        for _ in range(1024):
            f.write(bytes(1 << 20))

def others():
    mine, seen = os.getpid(), []
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        with open(path, 'rb') as f:
            if b'agent' in f.read() or b'tini' in f.read():
                seen.append(path)
    if not seen:
        raise OSError('no process of the agent')

def outlive():
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                null = os.open('/dev/null', os.O_RDWR)
                for n in range(3):
                    os.dup2(null, n)
                os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(987)'])
        finally:
            os._exit(0)

def attack(port, *agent):
    attempt('read the token of the node', read('/fleetscore/node/token'))
    attempt('read the environment of the agent', read('/proc/1/environ', '/proc/%d/environ' % os.getppid()))
    attempt('read the data of another job', read('/tmp/other-job.txt'))
    attempt('connect to the socket of the server', connect(socket.AF_UNIX, '/fleetscore/server/server.sock'))
    attempt('connect to the port of the server', connect(socket.AF_INET, ('127.0.0.1', port)))
    attempt('find an address on the internet', lambda: socket.create_connection(('192.0.2.1', 80), 2))
    attempt('see the processes of the node', others)
    attempt('end the agent', lambda: [os.kill(p, signal.SIGKILL) for p in (1,) + agent])
    attempt('write into the image', lambda: open('/app/own.py', 'w'))
    attempt('read the secrets of the server', read('DATA/secrets/*'))
    attempt('read the results of another job', read('DATA/store/predictions/native/_delta_log/*', 'DATA/store/predictions/native/*/*/*'))
    attempt('read a mount of another pipeline', read('HISTORY/limits.txt'))
    attempt('write into a mount of another pipeline', lambda: open('RESULTS/evil', 'w'))
    attempt('fill the disk', lambda: fill(os.environ.get('TMPDIR', '/tmp')))
    attempt('become root', lambda: os.setuid(0))
    outlive()
    print('end of the attack', flush=True)
`,
	"evil.py":        "import hostile\ndone = False\ndef run(batch):\n    global done\n    if not done:\n        hostile.attack(PORT)\n        done = True\n    return [0.0] * len(batch)\n",
	"evilcommand.py": "import sys\nsys.path.insert(0, '/app')\nimport hostile, os\nhostile.attack(PORT, os.getppid())\n",
}

// compiled compiles the modules that scripts import from their packages and from Python itself,
// because a process that has to do that starts several times as slowly.
const compiled = `
import os, py_compile, sys
import pandas, pyarrow, sklearn.pipeline, sklearn.preprocessing, sklearn.svm
release = 'python%d.%d' % sys.version_info[:2]
for module in list(sys.modules.values()):
    file = getattr(module, '__file__', None) or ''
    if not file.endswith('.py') or release not in file:
        continue
    rest = file.split('/' + release + '/')[-1]
    place = '/usr/lib/' + release
    if rest.startswith('site-packages/'):
        rest, place = rest.removeprefix('site-packages/'), '/usr/local/lib/' + release + '/dist-packages'
    folder, name = os.path.split(rest)
    to = os.path.join(sys.argv[1] + place, folder, '__pycache__', name.removesuffix('py') + sys.implementation.cache_tag + '.pyc')
    py_compile.compile(file, cfile=to, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
`

// containerPackages are in the image, and train its models.
var containerPackages = []string{"numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1"}

// attacks are how many things hostile.py tries.
const attacks = 15

// TestContainers: the runtimes python and command, the latter for each sensor and for all of a
// task, score the reference's readings in containers of an image that was built without an
// engine and is served by the server's own registry; results equal those of the native runtime,
// and the pool goes from no node to two and back. Models lie on a mount; commands read one and
// write into another. Hostile scripts in the same containers reach nothing.
func TestContainers(t *testing.T) {
	t.Parallel()
	engine := testkit.StartDocker(t)
	wheels, root, python := testkit.Wheels(t, containerPackages...), testkit.PythonRoot(t), testkit.VenvOf(t, "/usr/bin/python3", containerPackages...)
	pyc := t.TempDir()
	if out, err := testkit.Command(t, python, "-c", compiled, pyc).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	readings := filepath.Join(testkit.Reference(t), "sensor_data.csv")
	p := newServer(t, "", func(dir string) {
		if out, err := testkit.Command(t, python, "-c", referenceModels, readings, filepath.Join(dir, "history")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	history, results := filepath.Join(p.dir, "history"), filepath.Join(p.dir, "results")
	ofAges(t, filepath.Join(history, "models"), filepath.Join(history, "ages"))
	if err := os.WriteFile(filepath.Join(history, "limits.txt"), []byte("limit 7"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(p.dir, "app")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range containerFiles {
		if err := os.WriteFile(filepath.Join(app, name), []byte(strings.NewReplacer("PORT", port, "HISTORY/", history+"/", "RESULTS/", results+"/", "DATA/", filepath.Join(p.dir, "data")+"/").Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pipeline := func(name, more string) string {
		return "  " + name + ": {dataset: history, fleet: sensors, features: [Val=Value], limits: {model_timeout: 200s, no_data: 100%}, schedule: {start_when: clock}, " + more + "}\n"
	}
	text := fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS}
mounts:
  history: {path: %s}
  results: {path: %s, read_only: false}
fleets:
  sensors: {mount: history, path: models, model: "model_{Device}_{Tag}"}
  ages: {mount: history, path: ages, model: "model_{Device}_{Tag}"}
pools:
  here: {scale: {min: 0, max: 1}}
  boxes:
    provider: docker
    slots: 1
    scale: {min: 0, max: 2, idle_after: 8s}
    mounts: [history, results]
    docker: {image: "%s/team/python:v1", python: /usr/bin/python3, environments: /opt/environments, memory_mb: 3000, tmp_mb: 256}
    setup: {command: [/usr/bin/python3, /app/setup.py]}
pipelines:
`, history, results, p.addr) + pipeline("native", "pool: here") +
		pipeline("script", "pool: boxes, runtime: python, python: {code: /app, script: score.py, per_model: true, environments: [{sklearn: '0.24', path: old}, {sklearn: '1.9', path: new}]}") +
		pipeline("command", `pool: boxes, mounts: [history, results], runtime: command, command: {run: "python /app/start.py {Device} {Tag}", code: /app, predictions: preds.csv}`) +
		pipeline("bundle", `pool: boxes, runtime: command, command: {run: "python /app/bundle.py", code: /app, per: task, predictions: preds.csv}`) +
		strings.Replace(pipeline("ages", fmt.Sprintf("pool: boxes, runtime: python, python: {code: /app, script: age.py, per_model: true, environments: [{sklearn: '1.4', image: '%s/team/old:v1', python: /usr/bin/python3}]}", p.addr)), "fleet: sensors", "fleet: ages", 1) +
		pipeline("evil", "pool: boxes, runtime: python, python: {code: /app, script: evil.py}") +
		pipeline("evilcommand", `pool: boxes, runtime: command, command: {run: "python /app/evilcommand.py", code: /app, per: task}`)
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.args = []string{"--docker", engine.Host}
	p.start()
	server := "--server=http://" + p.addr
	run := func(args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := command(t, append(args, server)...)
		if code != 0 {
			t.Fatalf("%q: exit %d\n%s%s\n%s", args, code, stdout, stderr, p.log)
		}
		return stdout, stderr
	}
	// The virtual environment for the models' release is the image's Python under another name.
	environment := filepath.Join(pyc, "opt", "environments", "new")
	if err := errors.Join(os.MkdirAll(filepath.Join(environment, "bin"), 0o755), os.Symlink("/usr/bin/python3", filepath.Join(environment, "bin", "python")),
		os.WriteFile(filepath.Join(environment, "pyvenv.cfg"), []byte("home = /usr/bin\ninclude-system-site-packages = true\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	run(append([]string{"image", "build", "team/python:v1", "--base", root, "--copy", app + ":/app", "--copy", pyc + ":/", "--env", asCommand + "=1", "--wheel"}, wheels...)...)
	old := filepath.Join(t.TempDir(), "age.txt")
	if err := os.WriteFile(old, []byte("of old times"), 0o644); err != nil {
		t.Fatal(err)
	}
	run("image", "build", "team/old:v1", "--base", p.addr+"/team/python:v1", "--copy", old+":/app/age.txt")
	run("dataset", "upload", "history", readings)
	containers := func() int { return len(strings.Fields(engine.Run(t, "ps", "-aq"))) }
	submit := func(pipeline string) {
		t.Helper()
		if containers() != 0 {
			t.Errorf("before %s there are containers", pipeline)
		}
		hostile := strings.HasPrefix(pipeline, "evil") // what becomes of its job doesn't matter
		_, stdout, stderr := command(t, "job", "submit", pipeline, "--wait", "-o", "json", "--from", "2018-08-28T23:00:04.999999Z", "--to", "2018-08-29T03:12:30Z", server)
		if !hostile && !strings.Contains(stdout, `"scored": 15`) {
			t.Errorf("%s: %s%s\n%s", pipeline, stdout, stderr, p.log)
		}
		if n := containers(); pipeline != "native" && n == 0 || pipeline == "bundle" && n != 2 { // its sensors' costs are known
			t.Errorf("after %s there are %d containers", pipeline, n)
		}
		if pipeline == "script" {
			p.examined(engine)
			log, _ := testkit.Command(t, "sh", "-c", "cat "+filepath.Join(p.dir, "data", "store", "logs", pipeline, "*", "*", "*", "*.txt")).Output()
			if !strings.Contains(string(log), "scored in /opt/environments/new\n") || strings.Contains(string(log), "scored in /usr") {
				t.Errorf("the models weren't scored in the environment of their release:\n%s", log)
			}
		}
		if hostile {
			p.attacked(engine, pipeline)
		}
		eventually(t, "the containers are gone", func() bool { return containers() == 0 })
	}
	p.lacksMount(results, containers)
	for _, pipeline := range []string{"native", "script", "command", "bundle", "ages", "evil", "evilcommand"} {
		submit(pipeline)
	}
	p.inTheirImages()
	for _, sensor := range []string{"1_1", "3_5"} {
		if got := fileText(t, filepath.Join(results, sensor)); got != "limit 7" {
			t.Errorf("the command of sensor %s wrote %q into the mount", sensor, got)
		}
	}
	p.samePredictions("native", "script", "command", "bundle", "ages")
	if out, _ := testkit.Command(t, "grep", "-rh", "set up by", filepath.Join(p.dir, "data", "store", "logs", "nodes")).Output(); strings.Count(string(out), "set up by 65534\n") < 7 {
		t.Errorf("the logs of the nodes tell of the setup command: %s", out)
	}
}

// ofAges copies models. Those of device 1 say that an earlier release of scikit-learn made them.
func ofAges(t *testing.T, from, to string) {
	t.Helper()
	files, err := os.ReadDir(from)
	if err == nil {
		err = os.Mkdir(to, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		model := fileText(t, filepath.Join(from, f.Name()))
		if strings.HasPrefix(f.Name(), "model_1_") {
			model = strings.ReplaceAll(model, "1.9.1", "1.4.2")
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), []byte(model), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// inTheirImages checks that each model of the pipeline ages was scored in the image for its
// release, that the job names both images and the coverage that of each sensor, and that they are kept.
func (p *process) inTheirImages() {
	t := p.t
	t.Helper()
	server := "--server=http://" + p.addr
	var jobs api.List[fleetscore.Job]
	if err := p.Get(t.Context(), "/jobs?pipeline=ages", nil, &jobs); err != nil || len(jobs.Items) != 1 {
		t.Fatalf("%+v, %v", jobs.Items, err)
	}
	j := jobs.Items[0]
	if len(j.Environments) != 1 || j.Environments[0].Sensors != 5 || !strings.HasPrefix(j.Environments[0].Image, p.addr+"/team/old@sha256:") {
		t.Fatalf("the job runs in %s and %+v", j.Image, j.Environments)
	}
	old := j.Environments[0].Image
	if code, stdout, stderr := command(t, "job", "show", string(j.ID), server); code != 0 || !strings.Contains(stdout, j.Image) || !strings.Contains(stdout, old) {
		t.Errorf("job show: %d\n%s%s", code, stdout, stderr)
	}
	var coverage api.List[fleetscore.Item]
	if err := p.Get(t.Context(), "/jobs/"+string(j.ID)+"/coverage", nil, &coverage); err != nil {
		t.Fatal(err)
	}
	images := map[string]string{}
	for _, i := range coverage.Items {
		images[i.Key.String()] = i.Image
	}
	for key, want := range map[string]string{"1/1": "of old times", "1/3": "of old times", "2/1": "of today", "3/5": "of today"} {
		if image := images[key]; image == "" || (image == old) != (want == "of old times") || image != old && image != j.Image {
			t.Errorf("the coverage says that sensor %s was scored in %q", key, image)
		}
		if code, stdout, stderr := command(t, "job", "logs", string(j.ID), "--key", key, server); code != 0 || !strings.Contains(stdout, "scored in the image "+want) || strings.Count(stdout, "scored in the image") != 1 {
			t.Errorf("sensor %s, which is to be scored in the image %s: exit %d\n%s%s", key, want, code, stdout, stderr)
		}
	}
	if code, _, stderr := command(t, "image", "rm", strings.TrimPrefix(old, p.addr+"/"), server); code != 13 || !strings.Contains(stderr, "the results of job "+string(j.ID)+" were made with it") {
		t.Errorf("image rm: %d %s", code, stderr)
	}
}

// lacksMount: a container that can't have a mount of its pool isn't started, and its node says
// why; it is tried again once the mount is there.
func (p *process) lacksMount(folder string, containers func() int) {
	t := p.t
	t.Helper()
	server := "--server=http://" + p.addr
	if code, stdout, stderr := command(t, "job", "submit", "bundle", "--from", "2018-08-28T23:00:04.999999Z", "--to", "2018-08-28T23:30:00Z", server); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	var reason string
	eventually(t, "a node without a mount says so", func() bool {
		var nodes api.List[fleetscore.Node]
		if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes.Items {
			if n.Pool == "boxes" && n.Reason != "" {
				reason = string(n.State) + ": " + n.Reason
			}
		}
		return reason != ""
	})
	if !strings.HasPrefix(reason, "unusable: ") || !strings.Contains(reason, "check mount results: there is no folder "+folder) {
		t.Errorf("the node without the mount is %s\n%s", reason, p.log)
	}
	if _, stdout, _ := command(t, "job", "list", "--pipeline", "bundle", "-o", "json", server); !strings.Contains(stdout, "there is no folder "+folder) || !strings.Contains(stdout, "mount it on this machine") {
		t.Errorf("the job doesn't say what to do: %s", stdout)
	}
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the job goes on", func() bool {
		var jobs api.List[fleetscore.Job]
		if err := p.Get(t.Context(), "/jobs?pipeline=bundle", nil, &jobs); err != nil {
			t.Fatal(err)
		}
		return len(jobs.Items) == 1 && jobs.Items[0].Outcomes[fleetscore.Scored] == 15
	})
	eventually(t, "the container is gone", func() bool { return containers() == 0 })
}

// examined: the doctor says in a node's container what is in force there. The engine's filter
// of system calls allows no namespaces; what a task writes is bounded by the container's /tmp.
func (p *process) examined(engine *testkit.Docker) {
	t := p.t
	t.Helper()
	id := strings.Fields(engine.Run(t, "ps", "-q"))[0]
	var all []check
	if err := json.Unmarshal([]byte(engine.Run(t, "exec", id, "/fleetscore/agent", "node", "doctor", "-o", "json", "--require", "none")), &all); err != nil {
		t.Fatal(err)
	}
	holds := map[string]bool{}
	for _, c := range all {
		if c.OK {
			holds[c.Name] = true
		}
	}
	for _, name := range []string{"landlock", "seccomp", "files", "secrets", "network", "processes", "lifetime"} {
		if !holds[name] {
			t.Errorf("in the container %s doesn't hold: %+v", name, all)
		}
	}
}

// attacked checks what a hostile script in a container could do, by its log, and that no
// process of it is left in the container.
func (p *process) attacked(engine *testkit.Docker, pipeline string) {
	t := p.t
	t.Helper()
	out, _ := testkit.Command(t, "sh", "-c", "cat "+filepath.Join(p.dir, "data", "store", "logs", pipeline, "*", "*", "*", "*.txt")).Output()
	log := string(out)
	refused, ended := strings.Count(log, "couldn't "), strings.Count(log, "end of the attack")
	if ended == 0 || refused != attacks*ended || strings.Contains(log, "could ") {
		t.Errorf("%s: %d of %d attacks were refused:\n%s", pipeline, refused, attacks*max(1, ended), log)
	}
	for _, id := range strings.Fields(engine.Run(t, "ps", "-q")) {
		if top := engine.Run(t, "top", id, "-eo", "pid,args"); strings.Contains(top, "sleep(987)") {
			t.Errorf("a process of %s outlives its task:\n%s", pipeline, top)
		}
	}
}

// samePredictions checks that pipelines have the same predictions as the first one.
func (p *process) samePredictions(first string, others ...string) {
	t := p.t
	t.Helper()
	want, anomalies := map[string]float64{}, 0.0
	got := p.predictions(first)
	for i, at := range got.Times {
		want[got.Keys[got.KeyIndex[i]].String()+at.String()] = got.Prediction[i]
		anomalies += got.Prediction[i]
	}
	if len(want) != 17768 || anomalies == 0 || anomalies == 17768 {
		t.Errorf("%d rows have predictions, %v anomalies", len(want), anomalies)
	}
	for _, pipeline := range others {
		got := p.predictions(pipeline)
		if got.Len() != len(want) {
			t.Errorf("%s has %d predictions", pipeline, got.Len())
		}
		for i, k := range got.KeyIndex {
			if w, ok := want[got.Keys[k].String()+got.Times[i].String()]; !ok || w != got.Prediction[i] {
				t.Fatalf("%s: %s at %s: %v, natively %v", pipeline, got.Keys[k], got.Times[i], got.Prediction[i], w)
			}
		}
	}
}
