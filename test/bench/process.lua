-- Child processes, pinned to a core. Each is told to die with this process, so that nothing outlives a run however it ends.
local ffi = require "ffi"

ffi.cdef [[
int fork(void);
int execvp(const char *file, char *const argv[]);
int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5);
int kill(int pid, int sig);
int waitpid(int pid, int *status, int options);
int open(const char *path, int flags, ...);
int dup2(int from, int to);
void _exit(int code);
int usleep(unsigned int us);
int socket(int domain, int type, int protocol);
int close(int fd);
struct bench_address { uint16_t family; uint16_t port; uint32_t ip; char zero[8]; };
int bind(int fd, const struct bench_address *at, uint32_t len);
int getsockname(int fd, struct bench_address *at, uint32_t *len);
]]
local C = ffi.C

local PR_SET_PDEATHSIG, SIGTERM, SIGKILL, WNOHANG = 1, 15, 9, 1
local O_CREATE_TRUNC, MODE = 0x1 + 0x40 + 0x200, 0x1A4
local AF_INET, SOCK_STREAM, EINTR = 2, 1, 4

local process = {}

local function argv_of(arguments)
  local argv = ffi.new("char *[?]", #arguments + 1)
  for i, argument in ipairs(arguments) do argv[i - 1] = ffi.cast("char *", argument) end
  return argv
end

--- Starts `arguments` on a core; its output goes to the file `out`.
---@param arguments string[]
---@param core integer
---@param out string
---@return integer pid
function process.start(arguments, core, out)
  local all = { "taskset", "-c", tostring(core) }
  for _, argument in ipairs(arguments) do all[#all + 1] = tostring(argument) end
  local argv = argv_of(all)
  local pid = C.fork()
  if pid ~= 0 then return pid end
  C.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
  local fd = C.open(out, O_CREATE_TRUNC, ffi.cast("int", MODE))
  C.dup2(fd, 1)
  C.dup2(fd, 2)
  C.execvp(argv[0], argv)
  C._exit(127)
end

--- Waits for a process to end.
---@param pid integer
---@return integer status as waitpid gives it: 0 is fine, 9 is SIGKILL, 256 is exit(1)
function process.wait(pid)
  local status = ffi.new "int[1]"
  repeat local ended = C.waitpid(pid, status, 0) until ended == pid or ffi.errno() ~= EINTR
  return status[0]
end

--- Asks a process to end, and makes it.
---@param pid integer
function process.stop(pid)
  C.kill(pid, SIGTERM)
  for _ = 1, 200 do
    if C.waitpid(pid, nil, WNOHANG) ~= 0 then return end
    C.usleep(10000)
  end
  C.kill(pid, SIGKILL)
  C.waitpid(pid, nil, 0)
end

---@param seconds number
function process.sleep(seconds)
  C.usleep(seconds * 1e6)
end

--- A port of 127.0.0.1 that nobody listens on.
---@return integer
function process.free_port()
  local at, len = ffi.new "struct bench_address", ffi.new("uint32_t[1]", 16)
  at.family, at.ip = AF_INET, 0x0100007f -- 127.0.0.1 in network order on a little-endian machine
  local fd = C.socket(AF_INET, SOCK_STREAM, 0)
  C.bind(fd, at, 16)
  C.getsockname(fd, at, len)
  C.close(fd)
  return math.floor(at.port / 256) + at.port % 256 * 256
end

---@param program string
---@return boolean
function process.has(program)
  return os.execute(("PATH=$PATH:/usr/sbin command -v '%s' >/dev/null 2>&1"):format(program)) == 0
end

return process
