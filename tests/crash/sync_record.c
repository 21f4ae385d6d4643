/* Preloaded into Redis by power_cut.py: writes down what is on disk for certain, so that a power cut can be acted out.
 *
 * One line a call, appended to the file that SYNC_RECORD names: `s device inode bytes` after a successful fsync or fdatasync, with
 * the file's size from before the call; `t device inode bytes` after a truncation, and with 0 bytes for a new file, whose inode may have
 * been another file's. With SYNC_RECORD_KILL_AFTER_RENAME_TO set, the
 * process kills itself right after it has renamed something to a path that ends so: the moment between a rewrite and its sync.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int record = -1;
static const char *kill_after;

__attribute__((constructor)) static void open_record(void) {
    const char *path = getenv("SYNC_RECORD");
    const char *ending = getenv("SYNC_RECORD_KILL_AFTER_RENAME_TO");
    if (path != NULL) record = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0) abort();
    kill_after = ending == NULL ? NULL : strdup(ending);
}

static void note(char what, const struct stat *file, long long bytes) {
    char line[96];
    int length = snprintf(line, sizeof line, "%c %llu %llu %lld\n", what, (unsigned long long)file->st_dev,
                          (unsigned long long)file->st_ino, bytes);
    if (S_ISREG(file->st_mode) && write(record, line, (size_t)length) != length) abort();
}

static int synced(int fd, const char *name) {
    struct stat before;
    int known = fstat(fd, &before) == 0;
    int (*really)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = really(fd);
    if (result == 0 && known) note('s', &before, (long long)before.st_size);
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

static int truncated_open(int fd, off_t size, const char *name) {
    struct stat file;
    int (*really)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, name);
    int result = really(fd, size);
    if (result == 0 && fstat(fd, &file) == 0) note('t', &file, (long long)size);
    return result;
}

static int truncated_path(const char *path, off_t size, const char *name) {
    struct stat file;
    int (*really)(const char *, off_t) = (int (*)(const char *, off_t))dlsym(RTLD_NEXT, name);
    int result = really(path, size);
    if (result == 0 && stat(path, &file) == 0) note('t', &file, (long long)size);
    return result;
}

int ftruncate(int fd, off_t size) { return truncated_open(fd, size, "ftruncate"); }
int ftruncate64(int fd, off_t size) { return truncated_open(fd, size, "ftruncate64"); }
int truncate(const char *path, off_t size) { return truncated_path(path, size, "truncate"); }
int truncate64(const char *path, off_t size) { return truncated_path(path, size, "truncate64"); }

static int opened(const char *path, int flags, mode_t mode, const char *name) {
    struct stat file;
    int (*really)(const char *, int, mode_t) = (int (*)(const char *, int, mode_t))dlsym(RTLD_NEXT, name);
    int is_new = (flags & O_CREAT) != 0 && access(path, F_OK) != 0;
    int fd = really(path, flags, mode);
    if (fd >= 0 && record >= 0 && (is_new || (flags & O_TRUNC) != 0) && fstat(fd, &file) == 0) note('t', &file, 0);
    return fd;
}

static mode_t mode_of(int flags, va_list more) { return (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0; }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return opened(path, flags, mode, "open");
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return opened(path, flags, mode, "open64");
}

static FILE *opened_stream(const char *path, const char *mode, const char *name) {
    struct stat file;
    FILE *(*really)(const char *, const char *) = (FILE * (*)(const char *, const char *))dlsym(RTLD_NEXT, name);
    int is_new = access(path, F_OK) != 0 || mode[0] == 'w';
    FILE *stream = really(path, mode);
    if (stream != NULL && record >= 0 && is_new && fstat(fileno(stream), &file) == 0) note('t', &file, 0);
    return stream;
}

FILE *fopen(const char *path, const char *mode) { return opened_stream(path, mode, "fopen"); }
FILE *fopen64(const char *path, const char *mode) { return opened_stream(path, mode, "fopen64"); }

int rename(const char *from, const char *to) {
    int (*really)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    int result = really(from, to);
    size_t length = strlen(to), wanted = kill_after == NULL ? 0 : strlen(kill_after);
    if (result == 0 && wanted > 0 && length >= wanted && strcmp(to + length - wanted, kill_after) == 0) raise(SIGKILL);
    return result;
}
