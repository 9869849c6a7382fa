// SPDX-License-Identifier: Apache-2.0
//
// A library with a device adaptor of BYTES bytes, of which a test fills in the callbacks. Two of them, with other numbers of bytes and else
// the same layout, are loaded at the same address one after the other. What follows the struct is no callback: to call it crashes.
#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)

__asm__(".pushsection .data.adaptor, \"aw\", %progbits\n"
        ".globl pluginAdaptor\n"
        ".type pluginAdaptor, %object\n"
        ".size pluginAdaptor, " TEXT_OF(BYTES) "\n"
        ".balign 16\n"
        "pluginAdaptor:\n"
        ".zero 416\n"
        ".fill 224, 1, 0x5a\n"
        ".popsection\n");
