/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libnvmm-client.so loaded by a program that links nothing of it, as interpreters and plug-ins do.
 *
 * The loader keeps little space for the thread-local storage of libraries that come after the start.
 * A library that uses the initial-exec model takes from it; on Debian 12 some 1600 bytes are left
 * for all libraries of a process together.
 */
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TLS_MAX 256u

static const char *const symbols[] = {
	"nvmm_connect", "nvmm_local", "nvmm_global", "nvmm_ptr_pool", "nvmm_ptr_shelf", "nvmm_ptr_offset",
	"nvmm_epoch_enter", "nvmm_epoch_exit", "nvmm_alloc", "nvmm_errmsg",
};

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
	size_t *ret = arg;

	(void)size;
	if (!strstr(info->dlpi_name, "libnvmm-client.so"))
		return 0;
	*ret = 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_TLS)
			*ret = info->dlpi_phdr[i].p_memsz;
	return 1;
}

/* Fails in a thread of its own, whose end frees the text. */
static void *fail(void *lib)
{
	int (*connect)(void **ret, const void *options);
	const char *(*errmsg)(const void *nvmm);
	void *nvmm = NULL;

	*(void **)&connect = dlsym(lib, "nvmm_connect");
	*(void **)&errmsg = dlsym(lib, "nvmm_errmsg");
	if (strstr(errmsg(NULL), "no nvmmd serves"))
		return (void *)1;
	if (connect(&nvmm, NULL) >= 0 || nvmm || !strstr(errmsg(NULL), "no nvmmd serves"))
		return (void *)1;
	return NULL;
}

static int check(void *lib)
{
	uint16_t (*pool)(uint64_t ptr);
	size_t tls = SIZE_MAX;
	int failed = 0;

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++)
		if (!dlsym(lib, symbols[i])) {
			printf("%s is no symbol\n", symbols[i]);
			failed = 1;
		}
	if (failed)
		return 1;
	*(void **)&pool = dlsym(lib, "nvmm_ptr_pool");
	if (pool(UINT64_C(0x1234560000000042)) != 0x1234)
		return 1;
	dl_iterate_phdr(look, &tls);
	printf("%zu bytes of thread-local storage\n", tls);
	return tls > TLS_MAX;
}

int main(void)
{
	pthread_t thread;
	void *lib, *failed;

	setenv("NVMM_SOCKET", "/nonexistent/nvmmd.sock", 1);
	lib = dlopen(CLIENT_LIBRARY, RTLD_NOW);
	if (!lib) {
		printf("%s\n", dlerror());
		return 1;
	}
	if (check(lib) || fail(lib))
		return 1;
	for (int i = 0; i < 20; i++)
		if (pthread_create(&thread, NULL, fail, lib) != 0 ||
		    pthread_join(thread, &failed) != 0 || failed)
			return 1;
	return 0;
}
