--- Names of phases, and what is said where a call does not belong.

local phases = {}

-- In the order of abi.h.
phases.names = {
  [0] = "the script itself", "rewrite", "access", "header_filter", "body_filter", "log",
  "init_worker", "a timer", "websocket_frame", "certificate", "preread",
}

--- Why `what` cannot be used now; `where` says where it can.
function phases.refusal(abi, vm, what, where)
  return ("%s can be used in %s, and this is %s"):format(what, where,
    phases.names[abi.moon_abi_phase(vm)])
end

return phases
