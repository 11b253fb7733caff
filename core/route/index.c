// From a request to its best match, at the cost of a few cache lines:
//
//   host -> table of hosts -> struct host: table of paths -> struct node -> candidates, best first
//                                        \ patterns (paths by regex), best first
//
// Hosts are tried from the most specific (the whole name; then each ".suffix" that is a wildcard; then the one without a name),
// and within a host the exact path, the patterns, and the prefixes from the longest on. Precedence is thereby in the walk and in
// the order of the lists: the first candidate that the request meets is the answer.
//
// All tables are open addressing over 32 bits of a hash and an index, so that a probe that fails reads eight bytes. Everything is
// laid out host by host in the order of sorting: what one lookup reads lies together. A path is hashed once, segment by
// segment, which gives the hash of each of its prefixes on the way.
#include "route/index.h"

#include "base/err.h"
#include "base/regex.h"
#include "http/head.h"
#include "route/match.h"
#include "route/precedence.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    const struct moon_match *match;
    int index;        // of the action
    uint16_t methods; // bits by enum moon_method, all of them for any
    bool is_certain;  // nothing but the method is asked
};

struct pattern {
    struct candidate candidate;
    uint64_t start, mask; // first bytes that the path must have
};

struct node {
    uint32_t path_at; // in texts
    uint32_t path_len : 31;
    uint32_t is_exact : 1;
    uint32_t candidate_at, candidate_count;
};

struct slot {
    uint32_t tag;   // high half of the hash
    uint32_t place; // index + 1; 0: free
};

struct table {
    uint32_t slot_at, slot_mask;
};

struct host {
    uint32_t name_at, name_len; // in texts
    struct table paths;
    uint32_t pattern_at, pattern_count;
    uint64_t prefix_lens; // bit per length of a prefix, modulo 64
};

struct moon_index {
    struct slot *slots;
    struct host *hosts;
    struct node *nodes;
    struct candidate *candidates;
    struct pattern *patterns;
    char *texts;
    struct table table; // of hosts
    bool is_grpc;
    uint64_t wildcard_lens; // bit per length of a wildcard's suffix, modulo 64
    const struct host *any; // without a name; NULL: there is none
    uint32_t path_max_len;  // of exact paths and prefixes
    uint32_t host_count, node_count, candidate_count, pattern_count, slot_count, text_len;
};

struct end {
    uint32_t len;
    uint64_t hash;
};

struct lookup {
    const struct moon_index *index;
    const struct moon_head *head;
    struct moon_route_scratch *scratch;
    struct moon_slice path;
    uint64_t start; // the path's first bytes
    uint64_t hash;  // of the whole path, where is_whole
    uint16_t method;
    bool is_hashed, is_whole, is_asterisk;
    uint32_t end_count;
    struct end ends[MOON_PATH_SEGMENTS_MAX + 1]; // prefixes before a slash, the empty one first
};

// ---- hashes

#define SEED UINT64_C(0x9e3779b97f4a7c15)
#define EXACT_SALT UINT64_C(0xd6e8feb86659fd93)
#define FOLD UINT64_C(0x2020202020202020)

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 32);
}

static uint64_t load(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

// The `len` < 8 bytes before `end`, zeros behind them; the text they end begins at `base`.
static uint64_t load_tail(const char *base, const char *end, size_t len)
{
    uint64_t word = 0;
    if (len == 0)
        return 0;
    if (end - base >= 8)
        return load(end - 8) >> (64 - 8 * len);
    for (size_t i = 0; i < len; i++)
        word |= (uint64_t)(unsigned char)end[i - len] << (8 * i);
    return word;
}

// The first eight, zeros behind fewer.
static uint64_t first_bytes(struct moon_slice text)
{
    return text.len >= 8 ? load(text.ptr) : load_tail(text.ptr, text.ptr + text.len, text.len);
}

static uint64_t keep_bytes(uint64_t word, unsigned count)
{
    return count ? word & (UINT64_MAX >> (64 - 8 * count)) : 0;
}

// Index of the first '/' among eight bytes, 8: there is none.
static unsigned find_slash(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t x = word ^ (ones * '/');
    uint64_t zeros = (x - ones) & ~x & (ones << 7);
    return zeros ? (unsigned)__builtin_ctzll(zeros) / 8 : 8;
}

// Adds the segment at *at, which ends before `end` or a slash; moves *at there. The path begins at `base`.
static uint64_t hash_segment(uint64_t hash, const char *base, const char **at, const char *end)
{
    const char *p = *at;
    for (; end - p >= 8; p += 8) {
        uint64_t word = load(p);
        unsigned len = find_slash(word);
        if (len < 8) {
            *at = p + len;
            return mix(hash, keep_bytes(word, len) | (uint64_t)(len + 1) << 56);
        }
        hash = mix(hash, word);
    }
    uint64_t word = load_tail(base, end, (size_t)(end - p));
    unsigned len = find_slash(word);
    if (len > (unsigned)(end - p))
        len = (unsigned)(end - p);
    *at = p + len;
    return mix(hash, keep_bytes(word, len) | (uint64_t)(len + 1) << 56);
}

// Of a prefix or a path as a whole.
static uint64_t hash_path(struct moon_slice path)
{
    const char *at = path.ptr, *end = at + path.len;
    uint64_t hash = SEED;
    while (at < end) {
        at++;
        hash = hash_segment(hash, path.ptr, &at, end);
    }
    return hash;
}

static uint64_t hash_exact(uint64_t path_hash)
{
    return mix(path_hash, EXACT_SALT);
}

// Of a host in any case: among the bytes of a host the bit 0x20 is the case of letters.
static uint64_t hash_host(struct moon_slice host)
{
    uint64_t hash = SEED ^ host.len;
    size_t at = 0;
    for (; host.len - at >= 8; at += 8)
        hash = mix(hash, load(host.ptr + at) | FOLD);
    return mix(hash, load_tail(host.ptr, host.ptr + host.len, host.len - at) | FOLD);
}

// `name` is in lower case. Exact, but for a '_' or a bracket, which are left to the slow compare.
static bool is_same_host(const char *name, const char *host, size_t len)
{
    const struct moon_slice x = {name, len}, y = {host, len};
    if (len < 8)
        return moon_slice_equal_fold(x, y);
    uint64_t differ = load(name + len - 8) ^ (load(host + len - 8) | FOLD);
    for (size_t at = 0; len - at >= 8; at += 8)
        differ |= load(name + at) ^ (load(host + at) | FOLD);
    return differ == 0 || moon_slice_equal_fold(x, y);
}

static uint64_t bit_of(size_t len)
{
    return UINT64_C(1) << (len & 63);
}

// ---- looking up

static const struct host *find_host(const struct moon_index *index, struct moon_slice name)
{
    const struct slot *slots = index->slots + index->table.slot_at;
    uint64_t hash = hash_host(name);
    uint32_t tag = (uint32_t)(hash >> 32), at = (uint32_t)hash & index->table.slot_mask;
    for (; slots[at].place; at = (at + 1) & index->table.slot_mask) {
        const struct host *host = &index->hosts[slots[at].place - 1];
        if (slots[at].tag == tag && host->name_len == name.len &&
            is_same_host(index->texts + host->name_at, name.ptr, name.len))
            return host;
    }
    return NULL;
}

static const struct node *find_node(const struct moon_index *index, const struct host *host,
                                    struct moon_slice path, uint64_t hash, bool is_exact)
{
    const struct slot *slots = index->slots + host->paths.slot_at;
    uint32_t tag = (uint32_t)(hash >> 32), at = (uint32_t)hash & host->paths.slot_mask;
    for (; slots[at].place; at = (at + 1) & host->paths.slot_mask) {
        if (slots[at].tag != tag)
            continue;
        const struct node *node = &index->nodes[slots[at].place - 1];
        if (node->path_len == path.len && node->is_exact == is_exact &&
            memcmp(index->texts + node->path_at, path.ptr, path.len) == 0)
            return node;
    }
    return NULL;
}

// The index of the action, -1 or an error.
static int try_candidate(const struct lookup *at, const struct candidate *candidate)
{
    if (!(candidate->methods & at->method))
        return -1;
    if (candidate->is_certain)
        return candidate->index;
    if (at->head->method_id == MOON_METHOD_EXTENSION && candidate->match->methods &&
        !moon_match_has_extension(candidate->match, at->head->method))
        return -1;
    int got = moon_match_meets(candidate->match, at->head, at->scratch);
    return got == 1 ? candidate->index : got < 0 ? got : -1;
}

static int try_node(const struct lookup *at, const struct node *node)
{
    int got = -1;
    const struct candidate *candidates = at->index->candidates + node->candidate_at;
    for (uint32_t i = 0; i < node->candidate_count && got == -1; i++)
        got = try_candidate(at, &candidates[i]);
    return got;
}

static int try_path(const struct lookup *at, const struct host *host, struct moon_slice path,
                    uint64_t hash, bool is_exact)
{
    const struct node *node = find_node(at->index, host, path, hash, is_exact);
    return node ? try_node(at, node) : -1;
}

static int try_patterns(const struct lookup *at, const struct host *host)
{
    int got = -1;
    const struct pattern *patterns = at->index->patterns + host->pattern_at;
    for (uint32_t i = 0; i < host->pattern_count && got == -1; i++)
        if ((at->start & patterns[i].mask) == patterns[i].start)
            got = try_candidate(at, &patterns[i].candidate);
    return got;
}

// From the longest on, down to those of `least` slashes; the empty one has none.
static int try_prefixes(const struct lookup *at, const struct host *host, uint32_t least)
{
    int got = -1;
    if (at->is_whole && (host->prefix_lens & bit_of(at->path.len)))
        got = try_path(at, host, at->path, at->hash, false);
    for (uint32_t i = at->end_count; i > least && got == -1; i--) {
        const struct end *end = &at->ends[i - 1];
        if (host->prefix_lens & bit_of(end->len))
            got = try_path(at, host, (struct moon_slice){at->path.ptr, end->len}, end->hash, false);
    }
    return got;
}

// Where nothing is as long as the rest of the path, the rest is not looked at.
static void hash_ends(struct lookup *at)
{
    const char *p = at->path.ptr, *end = p + at->path.len;
    uint64_t hash = SEED;
    at->is_hashed = true;
    while (p < end && at->end_count <= MOON_PATH_SEGMENTS_MAX &&
           (size_t)(p - at->path.ptr) <= at->index->path_max_len) {
        at->ends[at->end_count++] = (struct end){(uint32_t)(p - at->path.ptr), hash};
        p++;
        hash = hash_segment(hash, at->path.ptr, &p, end);
    }
    at->is_whole = p == end;
    at->hash = hash;
}

static int try_host(struct lookup *at, const struct host *host)
{
    int got = -1;
    if (!at->is_hashed)
        hash_ends(at);
    if (at->is_whole && !at->is_asterisk)
        got = try_path(at, host, at->path, hash_exact(at->hash), true);
    // Of gRPC a service by its name comes before all that is told by an expression or by the method alone.
    if (got == -1 && at->index->is_grpc)
        got = try_prefixes(at, host, 1);
    if (got == -1 && host->pattern_count && !at->is_asterisk)
        got = try_patterns(at, host);
    return got == -1 ? try_prefixes(at, host, 0) : got;
}

// Wildcards from the longest on.
static int try_wildcards(struct lookup *at, struct moon_slice name)
{
    int got = -1;
    for (size_t i = 1; i < name.len && got == -1; i++) {
        if (name.ptr[i] != '.' || !(at->index->wildcard_lens & bit_of(name.len - i)))
            continue;
        const struct host *host = find_host(at->index, moon_slice_skip(name, i));
        if (host)
            got = try_host(at, host);
    }
    return got;
}

int moon_index_find(const struct moon_index *index, const struct moon_head *head,
                    struct moon_route_scratch *scratch)
{
    struct lookup at;
    struct moon_slice name = head->host.host;
    const struct host *host;
    int got = -1;
    at.index = index;
    at.head = head;
    at.scratch = scratch;
    at.path = head->target.path;
    at.start = first_bytes(at.path);
    at.method = (uint16_t)(1u << head->method_id);
    at.is_hashed = false;
    at.end_count = 0;
    at.is_asterisk = head->target.form == MOON_TARGET_ASTERISK;
    if (at.is_asterisk) // asks the server as a whole: what takes every path
        at.path = MOON_SLICE("/");
    if (name.len && name.ptr[name.len - 1] == '.')
        name.len--;
    if (name.len && (host = find_host(index, name)) != NULL)
        got = try_host(&at, host);
    if (got == -1 && index->wildcard_lens)
        got = try_wildcards(&at, name);
    if (got == -1 && index->any)
        got = try_host(&at, index->any);
    return got;
}

// ---- building: sorted, then laid out

static uint32_t add_text(struct moon_index *index, struct moon_slice text)
{
    uint32_t at = index->text_len;
    if (text.len)
        memcpy(index->texts + at, text.ptr, text.len);
    index->text_len += (uint32_t)text.len;
    return at;
}

static struct table add_table(struct moon_index *index, size_t count)
{
    uint32_t len = 1, at = index->slot_count;
    while (len < 2 * count)
        len *= 2;
    index->slot_count += len;
    return (struct table){at, len - 1};
}

static void add_to_table(struct moon_index *index, struct table table, uint64_t hash,
                         uint32_t place)
{
    struct slot *slots = index->slots + table.slot_at;
    uint32_t at = (uint32_t)hash & table.slot_mask;
    while (slots[at].place)
        at = (at + 1) & table.slot_mask;
    slots[at] = (struct slot){(uint32_t)(hash >> 32), place + 1};
}

// Something of the service or the method is not told by the path.
static bool needs_grpc(const struct moon_match *match)
{
    const struct moon_grpc_match *grpc = match->grpc;
    return grpc && match->kind != MOON_PATH_EXACT &&
           (match->kind == MOON_PATH_REGEX || grpc->method.text.len);
}

static struct candidate candidate_of(const struct moon_match *match)
{
    bool is_certain = match->condition_count == 0 && !match->regex && match->extension_count == 0 &&
                      !needs_grpc(match);
    return (struct candidate){match, match->index, match->methods ? match->methods : UINT16_MAX,
                              is_certain};
}

static void add_pattern(struct moon_index *index, const struct moon_match *match)
{
    char literal[8];
    size_t len = match->grpc ? 0 : moon_regex_literal(match->path, literal, sizeof literal);
    uint64_t start = first_bytes((struct moon_slice){literal, len});
    uint64_t mask = keep_bytes(UINT64_MAX, (unsigned)len);
    index->patterns[index->pattern_count++] = (struct pattern){candidate_of(match), start, mask};
}

// Adds the node of entries[0] and all that share its path; their number.
static size_t add_node(struct moon_index *index, struct host *host,
                       const struct moon_sorted *entries, size_t count)
{
    const struct moon_match *first = entries[0].match;
    struct node *node = &index->nodes[index->node_count];
    node->path_at = add_text(index, first->path);
    node->path_len = (uint32_t)first->path.len & INT32_MAX;
    node->is_exact = first->kind == MOON_PATH_EXACT;
    node->candidate_at = index->candidate_count;
    size_t n = 0;
    for (; n < count && entries[n].match->kind == first->kind &&
           moon_slice_equal(entries[n].match->path, first->path);
         n++)
        index->candidates[index->candidate_count++] = candidate_of(entries[n].match);
    node->candidate_count = (uint32_t)n;
    uint64_t hash = hash_path(first->path);
    if (first->kind == MOON_PATH_PREFIX)
        host->prefix_lens |= bit_of(first->path.len);
    else
        hash = hash_exact(hash);
    add_to_table(index, host->paths, hash, index->node_count++);
    if (first->path.len > index->path_max_len)
        index->path_max_len = (uint32_t)first->path.len;
    return n;
}

static void add_host(struct moon_index *index, const struct moon_sorted *entries, size_t count)
{
    struct host *host = &index->hosts[index->host_count++];
    host->name_at = add_text(index, entries[0].host);
    host->name_len = (uint32_t)entries[0].host.len;
    host->paths = add_table(index, count);
    host->pattern_at = index->pattern_count;
    for (size_t i = 0; i < count;) {
        if (entries[i].match->kind == MOON_PATH_REGEX)
            add_pattern(index, entries[i++].match);
        else
            i += add_node(index, host, entries + i, count - i);
    }
    host->pattern_count = index->pattern_count - host->pattern_at;
    if (host->name_len == 0)
        index->any = host;
    else if (entries[0].host.ptr[0] == '.')
        index->wildcard_lens |= bit_of(host->name_len);
}

static void *zeroed(size_t count, size_t len)
{
    void *out = calloc(count + 1, len);
    if (!out)
        abort();
    return out;
}

static size_t host_end(const struct moon_sorted *entries, size_t at, size_t count)
{
    size_t end = at + 1;
    while (end < count && moon_slice_equal(entries[end].host, entries[at].host))
        end++;
    return end;
}

// Room for everything at the worst; what is not used is never touched.
static void reserve(struct moon_index *index, const struct moon_sorted *entries, size_t count)
{
    size_t text_len = 0;
    for (size_t i = 0; i < count; i++)
        text_len += entries[i].host.len + entries[i].match->path.len;
    index->hosts = zeroed(count, sizeof *index->hosts);
    index->nodes = zeroed(count, sizeof *index->nodes);
    index->candidates = zeroed(count, sizeof *index->candidates);
    index->patterns = zeroed(count, sizeof *index->patterns);
    index->slots = zeroed(count * 8 + 1, sizeof *index->slots);
    index->texts = zeroed(text_len, 1);
}

struct moon_index *moon_index_new(const struct moon_match *matches, size_t count, bool is_grpc)
{
    size_t entry_count;
    struct moon_sorted *entries = moon_precedence_sort(matches, count, is_grpc, &entry_count);
    struct moon_index *index = zeroed(0, sizeof *index);
    index->is_grpc = is_grpc;
    reserve(index, entries, entry_count);
    for (size_t i = 0, end; i < entry_count; i = end) {
        end = host_end(entries, i, entry_count);
        add_host(index, entries + i, end - i);
    }
    index->table = add_table(index, index->host_count);
    for (uint32_t i = 0; i < index->host_count; i++) {
        const struct host *host = &index->hosts[i];
        struct moon_slice name = {index->texts + host->name_at, host->name_len};
        add_to_table(index, index->table, hash_host(name), i);
    }
    free(entries);
    return index;
}

void moon_index_free(struct moon_index *index)
{
    if (!index)
        return;
    free(index->slots);
    free(index->hosts);
    free(index->nodes);
    free(index->candidates);
    free(index->patterns);
    free(index->texts);
    free(index);
}
