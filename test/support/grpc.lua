-- gRPC by hand: frames of messages, calls over raw HTTP/2, and answers of an HTTP/1.1 backend that speaks gRPC with trailers.
local http2 = require "test.support.http2"

local grpc = {}

-- A length-prefixed message.
function grpc.frame(message, flag)
  return string.char(flag or 0) .. http2.u32(#message) .. message
end

-- Takes length-prefixed frames apart: a list of { flag, bytes }.
function grpc.frames(bytes)
  local out, at = {}, 1
  while at <= #bytes do
    local flag, a, b, c, d = bytes:byte(at, at + 4)
    local len = ((a * 256 + b) * 256 + c) * 256 + d
    assert(at + 4 + len <= #bytes, "a frame is cut off")
    out[#out + 1] = { flag = flag, bytes = bytes:sub(at + 5, at + 4 + len) }
    at = at + 5 + len
  end
  return out
end

-- Begins a call on a connected http2 client; with a message its side ends.
function grpc.begin(client, id, path, fields, message)
  local list = { { "content-type", "application/grpc" }, { "te", "trailers" } }
  for _, field in ipairs(fields or {}) do list[#list + 1] = field end
  client:request(id, { [":method"] = "POST", [":path"] = path }, list, { open = true })
  if message then client:data(id, grpc.frame(message), true) end
  return client
end

-- A call with one message, on a connection of its own.
function grpc.call(gateway, path, fields, message)
  local client = http2.connect(gateway:connect())
  grpc.begin(client, 1, path, fields, message or "ask")
  local response = client:response(1)
  client.stream:close()
  return response
end

-- What an HTTP/1.1 backend sends: frames in chunks, then trailers.
function grpc.http1_answer(messages, trailers, fields)
  local out = { "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n", fields or "", "\r\n" }
  for _, message in ipairs(messages) do
    local frame = grpc.frame(message)
    out[#out + 1] = ("%x\r\n%s\r\n"):format(#frame, frame)
  end
  out[#out + 1] = "0\r\n" .. (trailers or "grpc-status: 0\r\n") .. "\r\n"
  return table.concat(out)
end

return grpc
