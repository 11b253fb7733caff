// The two messages of grpc.health.v1.Health/Check, as they go over the wire: frames of gRPC around protobuf.
#pragma once

#include "base/slice.h"

struct moon_arena;

enum { MOON_GRPC_HEALTH_MAX_LEN = 256 }; // of an answer that is understood

// HealthCheckRequest { string service = 1 }. In the arena; ptr NULL when there is no room.
struct moon_slice moon_grpc_health_ask(struct moon_arena *arena, struct moon_slice service);
// The `status` of a HealthCheckResponse, in a frame and nothing else: 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN, 0 UNKNOWN;
// -1: it is none, or is compressed.
int moon_grpc_health_read(struct moon_slice bytes);
