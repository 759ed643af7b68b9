/* A libnvidia-ml.so.1 without GPUs: 8 healthy H100 SXM, and what a text file says otherwise, read anew at every call.
 *   $FAKE_NVML      lines "DEVICE KEY VALUE", DEVICE an index or *; a device's own line beats a * line; replace it by rename
 *   $FAKE_NVML.xids lines "DEVICE XID"; each line appended is one event in every event set that waits for that device
 * Keys: the strings below; "error" (of a device) and "error.FUNCTION" (name without "nvml") are the nvmlReturn_t to answer.
 * What is not here answers NVML_ERROR_NOT_SUPPORTED (nvml.py). */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define MAX 64
#define NVLINKS 18
#define XID nvmlEventTypeXidCriticalError
#define OK NVML_SUCCESS
typedef unsigned int u32; typedef unsigned long long u64;
static int users; /* Init less Shutdown */
static FILE *file(const char *suffix) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s", getenv("FAKE_NVML") ? getenv("FAKE_NVML") : "/etc/fake-nvml", suffix);
    return fopen(path, "re");
}
/* The value of a key for a device (-1: the machine), or "otherwise"; out holds 256. */
static const char *text(int device, const char *key, const char *otherwise, char *out) {
    char line[512], who[32], what[64], value[256];
    int own = 0;
    FILE *state = file("");
    strcpy(out, otherwise);
    while (state && fgets(line, sizeof line, state)) {
        if (sscanf(line, "%31s %63s %255[^\n]", who, what, value) != 3 || strcmp(what, key)) continue;
        int mine = strspn(who, "0123456789") && atoi(who) == device;
        if (mine || (*who == '*' && !own)) snprintf(out, 256, "%s", value), own |= mine;
    }
    if (state) fclose(state);
    return out;
}
static u64 number(int device, const char *key, u64 otherwise) {
    char value[256], given[32];
    return snprintf(given, sizeof given, "%llu", otherwise), strtoull(text(device, key, given, value), NULL, 0);
}
static u64 link_number(int device, u32 link, const char *key, u64 otherwise) { /* nvlink.5.state beats nvlink.state */
    char all[64], one[64];
    snprintf(all, sizeof all, "nvlink.%s", key), snprintf(one, sizeof one, "nvlink.%u.%s", link, key);
    return number(device, one, number(device, all, otherwise));
}
static int count(void) { u64 n = number(-1, "count", 8); return n < MAX ? (int)n : MAX; }
static int index_of(nvmlDevice_t device) { return (int)((char *)device - (char *)0) - 1; }
static nvmlDevice_t handle(int device) { return (nvmlDevice_t)((char *)0 + device + 1); }
static nvmlReturn_t verdict(int device, const char *function) {
    char key[96];
    if (!users || device >= count()) return users ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_UNINITIALIZED;
    snprintf(key, sizeof key, "error.%s", function + 4);
    u64 code = number(device, key, 0);
    return code || device < 0 ? code : number(device, "error", 0);
}
static nvmlReturn_t put(char *to, u32 n, const char *from) { return strlen(from) < n ? strcpy(to, from), OK : NVML_ERROR_INSUFFICIENT_SIZE; }
#define SYSTEM nvmlReturn_t no = verdict(-1, __func__); if (no) return no
#define DEVICE int i = index_of(d); nvmlReturn_t no = i < 0 ? NVML_ERROR_INVALID_ARGUMENT : verdict(i, __func__); if (no) return no
#define F(name, ...) nvmlReturn_t nvmlDevice##name(nvmlDevice_t d, ##__VA_ARGS__)
#define GIVES(type, name, key, otherwise) F(name, type *out) { DEVICE; *out = (type)number(i, key, otherwise); return OK; }
#define SAYS(name, key, otherwise) F(name, char *out, u32 n) { DEVICE; char v[256]; return put(out, n, text(i, key, otherwise, v)); }
#define SYSTEM_SAYS(name, key, otherwise) \
    nvmlReturn_t nvmlSystem##name(char *out, u32 n) { SYSTEM; char v[256]; return put(out, n, text(-1, key, otherwise, v)); }
#define LINK_GIVES(type, name, key, otherwise) F(GetNvLink##name, u32 link, type *out) { \
    DEVICE; if (link >= NVLINKS) return NVML_ERROR_INVALID_ARGUMENT; *out = link_number(i, link, key, otherwise); return OK; }
nvmlReturn_t nvmlInitWithFlags(u32 flags) { nvmlReturn_t code = number(-1, "init", 0); (void)flags; users += !code; return code; }
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { if (!users) return NVML_ERROR_UNINITIALIZED; users--; return OK; }
const char *nvmlErrorString(nvmlReturn_t code) {
    static const struct { int code; const char *words; } known[] = {
        {0, "Success"}, {1, "Uninitialized"}, {2, "Invalid Argument"}, {3, "Not Supported"}, {6, "Not Found"}, {9, "Driver Not Loaded"},
        {10, "Timeout"}, {15, "GPU is lost"}, {16, "GPU requires reset"}, {18, "Driver/library version mismatch"}};
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (known[k].code == (int)code) return known[k].words;
    return "Unknown Error";
}
SYSTEM_SAYS(GetDriverVersion, "driver", "570.158.01")
SYSTEM_SAYS(GetNVMLVersion, "nvml", "12.570.158.01")
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out) { SYSTEM; *out = (int)number(-1, "cuda", 12080); return OK; }
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }
static const char *uuid(int i, char *out) { /* "node" tells machines apart */
    char given[64];
    return snprintf(given, sizeof given, "GPU-%08llx-0000-4000-8000-%012x", number(-1, "node", 1), i), text(i, "uuid", given, out);
}
static const char *bus(int i, char *out) {
    static const u32 slots[] = {0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf}; /* as on common 8-GPU boards */
    char given[64];
    return snprintf(given, sizeof given, "%08X:%02X:00.0", i / 8, slots[i % 8]), text(i, "pci", given, out);
}
static void pci(const char *address, nvmlPciInfo_t *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->busId, sizeof out->busId, "%.31s", address);
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%.15s", out->busId + 4);
    sscanf(out->busId, "%x:%x:%x", &out->domain, &out->bus, &out->device);
}
static nvmlReturn_t find(const char *wanted, const char *name(int, char *), const char *function, nvmlDevice_t *out) {
    char value[256];
    for (int i = 0; i < count(); i++)
        if (!strcasecmp(name(i, value), wanted)) { *out = handle(i); return verdict(i, function); }
    return NVML_ERROR_NOT_FOUND;
}
nvmlReturn_t nvmlDeviceGetCount_v2(u32 *out) { SYSTEM; *out = count(); return OK; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(u32 n, nvmlDevice_t *out) { *out = handle((int)n); return verdict((int)n, __func__); }
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *u, nvmlDevice_t *out) { SYSTEM; return find(u, uuid, __func__, out); }
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *p, nvmlDevice_t *out) { SYSTEM; return find(p, bus, __func__, out); }
SAYS(GetName, "name", "NVIDIA H100 80GB HBM3")
F(GetUUID, char *out, u32 n) { DEVICE; char v[256]; return put(out, n, uuid(i, v)); }
F(GetIndex, u32 *out) { DEVICE; *out = i; return OK; }
F(GetMinorNumber, u32 *out) { DEVICE; *out = i; return OK; }
F(GetPciInfo_v3, nvmlPciInfo_t *out) { DEVICE; char v[256]; pci(bus(i, v), out); out->pciDeviceId = 0x233010de; return OK; }
static void memory(int i, nvmlMemory_v2_t *out) {
    out->total = number(i, "memory.total", 85520809984), out->reserved = number(i, "memory.reserved", 550502400);
    out->used = number(i, "memory.used", 0), out->free = out->total - out->reserved - out->used;
}
F(GetMemoryInfo_v2, nvmlMemory_v2_t *out) { DEVICE; memory(i, out); return OK; }
F(GetMemoryInfo, nvmlMemory_t *out) { DEVICE; nvmlMemory_v2_t m; memory(i, &m); *out = (nvmlMemory_t){m.total, m.free, m.total - m.free}; return OK; }
F(GetCudaComputeCapability, int *major, int *minor) { DEVICE; *major = number(i, "compute.major", 9), *minor = number(i, "compute.minor", 0); return OK; }
GIVES(nvmlDeviceArchitecture_t, GetArchitecture, "architecture", NVML_DEVICE_ARCH_HOPPER)
GIVES(nvmlBrandType_t, GetBrand, "brand", NVML_BRAND_NVIDIA)
GIVES(u32, GetPowerUsage, "power", 70000)
GIVES(u32, GetNumaNodeId, "numa", i / 4)
GIVES(u64, GetCurrentClocksEventReasons, "clocks.reasons", 1)
GIVES(u64, GetSupportedEventTypes, "events", XID | nvmlEventTypeDoubleBitEccError | nvmlEventTypeSingleBitEccError)
GIVES(u32, GetMaxMigDeviceCount, "mig.max", 7)
GIVES(u32, IsMigDeviceHandle, "mig.handle", 0)
F(GetMigDeviceHandleByIndex, u32 n, nvmlDevice_t *out) { DEVICE; (void)n, (void)out; return NVML_ERROR_NOT_FOUND; }
F(GetMigMode, u32 *now, u32 *next) { DEVICE; *now = number(i, "mig", 0), *next = number(i, "mig.pending", *now); return OK; }
F(GetTemperature, nvmlTemperatureSensors_t s, u32 *out) { DEVICE; (void)s; *out = number(i, "temperature", 32); return OK; }
F(GetTemperatureV, nvmlTemperature_t *out) { DEVICE; out->temperature = (int)number(i, "temperature", 32); return OK; }
F(GetUtilizationRates, nvmlUtilization_t *out) { DEVICE; out->gpu = number(i, "utilization", 0), out->memory = 0; return OK; }
F(GetComputeRunningProcesses_v3, u32 *n, nvmlProcessInfo_t *out) { DEVICE; (void)out; *n = 0; return OK; }
F(GetEccMode, nvmlEnableState_t *now, nvmlEnableState_t *next) { DEVICE; *now = *next = number(i, "ecc", 1); return OK; }
F(GetTotalEccErrors, nvmlMemoryErrorType_t type, nvmlEccCounterType_t since, u64 *out) { /* ecc.volatile.uncorrected … */
    DEVICE;
    char key[64];
    snprintf(key, sizeof key, "ecc.%s.%scorrected", since == NVML_VOLATILE_ECC ? "volatile" : "aggregate", type ? "un" : "");
    return *out = number(i, key, 0), OK;
}
F(GetRemappedRows, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    DEVICE;
    *corrected = number(i, "rows.corrected", 0), *uncorrected = number(i, "rows.uncorrected", 0);
    return *pending = number(i, "rows.pending", 0), *failed = number(i, "rows.failed", 0), OK;
}
LINK_GIVES(nvmlEnableState_t, State, "state", 1)
LINK_GIVES(u32, Version, "version", 4)
LINK_GIVES(nvmlIntNvLinkDeviceType_t, RemoteDeviceType, "remote", NVML_NVLINK_DEVICE_TYPE_SWITCH)
F(GetNvLinkErrorCounter, u32 link, nvmlNvLinkErrorCounter_t counter, u64 *out) { /* nvlink.5.errors.1, 1: CRC FLIT */
    DEVICE;
    char key[32];
    snprintf(key, sizeof key, "errors.%d", counter), *out = link_number(i, link, key, 0);
    return link < NVLINKS ? OK : NVML_ERROR_INVALID_ARGUMENT;
}
F(GetNvLinkRemotePciInfo_v2, u32 link, nvmlPciInfo_t *out) { /* one of four switches */
    DEVICE;
    char address[64];
    snprintf(address, sizeof address, "00000000:%02X:00.0", 7 + link % 4), pci(address, out);
    return link < NVLINKS ? OK : NVML_ERROR_INVALID_ARGUMENT;
}
F(GetTopologyCommonAncestor, nvmlDevice_t other, nvmlGpuTopologyLevel_t *out) {
    DEVICE;
    int j = index_of(other), near = number(i, "numa", i / 4) == number(j, "numa", j / 4);
    return *out = i == j ? NVML_TOPOLOGY_INTERNAL : near ? NVML_TOPOLOGY_NODE : NVML_TOPOLOGY_SYSTEM, OK;
}
#define FABRIC(out) memset((out)->clusterUuid, 0, sizeof (out)->clusterUuid), (out)->cliqueId = 0, \
    (out)->state = number(i, "fabric.state", NVML_GPU_FABRIC_STATE_COMPLETED), (out)->status = number(i, "fabric.status", 0)
F(GetGpuFabricInfo, nvmlGpuFabricInfo_t *out) { DEVICE; FABRIC(out); return OK; }
F(GetGpuFabricInfoV, nvmlGpuFabricInfoV_t *out) { /* every version begins as v2 does */
    DEVICE;
    FABRIC((nvmlGpuFabricInfo_v2_t *)out), out->healthMask = number(i, "fabric.health", 0);
    if (out->version >> 24 > 2) out->healthSummary = number(i, "fabric.summary", NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY);
    return OK;
}
struct set { long seen; u64 types[MAX]; };
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out) { /* sees what is appended from now on */
    SYSTEM;
    struct set *set = calloc(1, sizeof *set);
    FILE *events = file(".xids");
    if (events) fseek(events, 0, SEEK_END), set->seen = ftell(events), fclose(events);
    return *out = (nvmlEventSet_t)set, OK;
}
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) { free(set); return OK; }
F(RegisterEvents, u64 types, nvmlEventSet_t set) { DEVICE; ((struct set *)set)->types[i] |= types; return OK; }
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t handle_of_set, nvmlEventData_t *out, u32 milliseconds) {
    struct set *set = (void *)handle_of_set;
    for (u32 waited = 0;; waited += 20, usleep(20000)) {
        SYSTEM;
        char line[128];
        int i = -1, found = 0;
        u64 xid;
        FILE *events = file(".xids");
        if (events) fseek(events, set->seen, SEEK_SET);
        while (!found && events && fgets(line, sizeof line, events) && strchr(line, '\n')) {
            set->seen += strlen(line);
            found = sscanf(line, "%d %llu", &i, &xid) == 2 && i >= 0 && i < MAX && set->types[i] & XID;
        }
        if (events) fclose(events);
        if (found) return *out = (nvmlEventData_t){handle(i), XID, xid, ~0u, ~0u}, OK;
        if (waited >= milliseconds) return NVML_ERROR_TIMEOUT;
    }
}
