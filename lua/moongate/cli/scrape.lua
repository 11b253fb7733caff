--- Reading the text of /metrics: what two of them differ by, and quantiles of a histogram (for moongate top).

local scrape = {}

local UNESCAPED = { ["\\\\"] = "\\", ['\\"'] = '"', ["\\n"] = "\n" }

-- name="value",... as a table.
local function labels_of(text)
  local labels, at = {}, 1
  while true do
    local name, start = text:match('^([%w_]+)="()', at)
    local stop = start
    while name do
      local mark = text:find('["\\]', stop)
      if not mark then
        name = nil
      elseif text:byte(mark) == 34 then
        stop = mark
        break
      else
        stop = mark + 2
      end
    end
    if not name then
      return labels
    end
    labels[name] = text:sub(start, stop - 1):gsub('\\[\\"n]', UNESCAPED)
    at = stop + 2
  end
end

local function histogram_of(list, name)
  list[name] = list[name] or { bounds = {}, below = {}, count = 0, requests = 0, errors = 0 }
  return list[name]
end

local function add_bucket(histogram, bound, value)
  if bound == "+Inf" then
    histogram.count = value
    return
  end
  histogram.bounds[#histogram.bounds + 1] = tonumber(bound)
  histogram.below[#histogram.below + 1] = value
end

local function add_requests(out, labels, value)
  for list, name in pairs { routes = labels.route, upstreams = labels.upstream } do
    local histogram = histogram_of(out[list], name)
    histogram.requests = histogram.requests + value
    if labels.class == "5xx" then
      histogram.errors = histogram.errors + value
    end
  end
end

--- What top shows of a text.
---@param text string
---@return table { routes = { [name] = histogram }, upstreams =, connections = }
function scrape.read(text)
  local out = { routes = {}, upstreams = {}, connections = 0 }
  for line in text:gmatch "[^\n]+" do
    local name, labels, value = line:match "^moongate_([%w_]+){(.*)} (%S+)$"
    if name == "requests_total" then
      add_requests(out, labels_of(labels), tonumber(value))
    elseif name == "request_duration_seconds_bucket" then
      labels = labels_of(labels)
      add_bucket(histogram_of(out.routes, labels.route), labels.le, tonumber(value))
    elseif name == "upstream_duration_seconds_bucket" then
      labels = labels_of(labels)
      add_bucket(histogram_of(out.upstreams, labels.upstream), labels.le, tonumber(value))
    elseif not name then
      out.connections = tonumber(line:match "^moongate_connections_live (%S+)$") or out.connections
    end
  end
  return out
end

--- The value that the share `part` of what came between two readings of a histogram is not above, taken as evenly spread within its
--- bucket; nil when nothing came. Above the last bound: that bound.
---@param before table?
---@param after table
---@param part number 0.99
---@return number? seconds
function scrape.quantile(before, after, part)
  local count = after.count - (before and before.count or 0)
  if count <= 0 then
    return nil
  end
  local rank, low, below = part * count, 0, 0
  for i, bound in ipairs(after.bounds) do
    local here = after.below[i] - (before and before.below[i] or 0)
    if here >= rank then
      return here > below and low + (bound - low) * (rank - below) / (here - below) or bound
    end
    low, below = bound, here
  end
  return low
end

return scrape
