--- JSON (RFC 8259), by lua-cjson.

local cjson = require "cjson.safe"

local json = {}

local codec = cjson.new()
codec.decode_max_depth(64)
codec.encode_max_depth(64)
codec.encode_sparse_array(true)

--- An empty list, where {} would be an object.
---@type any
json.empty_array = cjson.empty_array
--- JSON's null.
---@type any
json.null = cjson.null

--- The text of a value; raises where it has none (functions, cycles).
---@param value any
---@return string
function json.encode(value)
  local text, err = codec.encode(value)
  if not text then error("json.encode: " .. tostring(err), 2) end
  return text
end

--- The value of a text, or nil and what is wrong with it.
---@param text string
---@return any value, string? err
function json.decode(text)
  if type(text) ~= "string" then return nil, "not a text" end
  return codec.decode(text)
end

return json
