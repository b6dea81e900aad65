#include "textflag.h"

// The smaller loops for AVX-512. Each turn computes one vector of 8 float64. In all
// loops DI points to the results, SI to the input, and CX is the number of turns left.

// func exp2AVX512(dst, src *float64, n int)
//
// Like the Go code: 2^x = 2^n·2^r, where n is the nearest integer and |r| ≤ ½, with
// eleven coefficients in Z16…Z26. Z27 is the constant 1.
TEXT ·exp2AVX512(SB), NOSPLIT, $0-24
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSD ·exp2Coef+0(SB), Z16
	VBROADCASTSD ·exp2Coef+8(SB), Z17
	VBROADCASTSD ·exp2Coef+16(SB), Z18
	VBROADCASTSD ·exp2Coef+24(SB), Z19
	VBROADCASTSD ·exp2Coef+32(SB), Z20
	VBROADCASTSD ·exp2Coef+40(SB), Z21
	VBROADCASTSD ·exp2Coef+48(SB), Z22
	VBROADCASTSD ·exp2Coef+56(SB), Z23
	VBROADCASTSD ·exp2Coef+64(SB), Z24
	VBROADCASTSD ·exp2Coef+72(SB), Z25
	VBROADCASTSD ·exp2Coef+80(SB), Z26
	VBROADCASTSD ·exp2Short+48(SB), Z27

loop:
	VMOVUPD     (SI), Z0
	VRNDSCALEPD $8, Z0, Z1   // n
	VREDUCEPD   $0, Z0, Z2   // r
	VMOVAPD     Z26, Z3
	VFMADD213PD Z25, Z2, Z3
	VFMADD213PD Z24, Z2, Z3
	VFMADD213PD Z23, Z2, Z3
	VFMADD213PD Z22, Z2, Z3
	VFMADD213PD Z21, Z2, Z3
	VFMADD213PD Z20, Z2, Z3
	VFMADD213PD Z19, Z2, Z3
	VFMADD213PD Z18, Z2, Z3
	VFMADD213PD Z17, Z2, Z3
	VFMADD213PD Z16, Z2, Z3
	VFMADD213PD Z27, Z2, Z3
	VSCALEFPD   Z1, Z3, Z3
	VMOVUPD     Z3, (DI)
	ADDQ        $64, SI
	ADDQ        $64, DI
	DECQ        CX
	JNZ         loop
	VZEROUPPER
	RET

// func standardizeAVX512(dst, src *float64, n int, mean, scale float64) bool
//
// Z2 collects v − v for each result v: this is 0 for a finite v, else NaN, which stays
// NaN.
TEXT ·standardizeAVX512(SB), NOSPLIT, $0-41
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSD mean+24(FP), Z30
	VBROADCASTSD scale+32(FP), Z31
	VPXORQ       Z2, Z2, Z2

loop:
	VMOVUPD (SI), Z0
	VSUBPD  Z30, Z0, Z0
	VDIVPD  Z31, Z0, Z0
	VMOVUPD Z0, (DI)
	VSUBPD  Z0, Z0, Z1
	VADDPD  Z1, Z2, Z2
	ADDQ    $64, SI
	ADDQ    $64, DI
	DECQ    CX
	JNZ     loop
	VCMPPD  $3, Z2, Z2, K1 // find a NaN
	KORTESTB K1, K1
	SETEQ   ret+40(FP)
	VZEROUPPER
	RET

// func finiteAVX512(x *float64, n int) bool
TEXT ·finiteAVX512(SB), NOSPLIT, $0-17
	MOVQ   x+0(FP), SI
	MOVQ   n+8(FP), CX
	VPXORQ Z2, Z2, Z2

loop:
	VMOVUPD (SI), Z0
	VSUBPD  Z0, Z0, Z1
	VADDPD  Z1, Z2, Z2
	ADDQ    $64, SI
	DECQ    CX
	JNZ     loop
	VCMPPD  $3, Z2, Z2, K1
	KORTESTB K1, K1
	SETEQ   ret+16(FP)
	VZEROUPPER
	RET

// func decideAVX512(label, decision, sum *float64, n int, intercept, near float64) bool
//
// Z26 is 1, Z27 −1, Z28 0; Z29 clears signs; Z30 is the intercept, Z31 near. K2
// collects the lanes whose decision isn't farther from 0 than near, also NaN.
TEXT ·decideAVX512(SB), NOSPLIT, $0-49
	MOVQ         label+0(FP), BX
	MOVQ         decision+8(FP), DI
	MOVQ         sum+16(FP), SI
	MOVQ         n+24(FP), CX
	VBROADCASTSD intercept+32(FP), Z30
	VBROADCASTSD near+40(FP), Z31
	VBROADCASTSD ·exp2Short+48(SB), Z26
	VPXORQ       Z28, Z28, Z28
	VSUBPD       Z26, Z28, Z27
	VPTERNLOGQ   $0xff, Z29, Z29, Z29
	VPSRLQ       $1, Z29, Z29
	KXORB        K2, K2, K2

loop:
	VMOVUPD   (SI), Z0
	VADDPD    Z30, Z0, Z0
	VMOVUPD   Z0, (DI)
	VCMPPD    $0x1e, Z28, Z0, K1 // above 0; false for NaN
	VMOVAPD   Z27, Z1
	VMOVAPD   Z26, K1, Z1
	VMOVUPD   Z1, (BX)
	VPANDQ    Z29, Z0, Z0
	VCMPPD    $0x1a, Z31, Z0, K3 // not above near, or NaN
	KORB      K3, K2, K2
	ADDQ      $64, SI
	ADDQ      $64, DI
	ADDQ      $64, BX
	DECQ      CX
	JNZ       loop
	KORTESTB  K2, K2
	SETEQ     ret+48(FP)
	VZEROUPPER
	RET

// func addScaledAVX512(dst, src *float64, n int, f float64)
//
// Product and sum aren't fused, because the Go code rounds the product too.
TEXT ·addScaledAVX512(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSD f+24(FP), Z31

loop:
	VMULPD  (SI), Z31, Z0
	VADDPD  (DI), Z0, Z0
	VMOVUPD Z0, (DI)
	ADDQ    $64, SI
	ADDQ    $64, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// func transposeAVX512(dst, x *float64, stride, cols, n, width int)
//
// Each turn transposes eight rows of up to eight columns. x points to the first of
// these columns in the first row, dst to that column; width is the number of columns.
//
//	R9   bytes between columns of dst    R10  bytes between rows of x
//	K1   the columns that exist      R8   width
TEXT ·transposeAVX512(SB), NOSPLIT, $0-48
	MOVQ  dst+0(FP), DI
	MOVQ  x+8(FP), SI
	MOVQ  stride+16(FP), R9
	SHLQ  $3, R9
	MOVQ  cols+24(FP), R10
	SHLQ  $3, R10
	MOVQ  n+32(FP), DX
	MOVQ  width+40(FP), R8
	MOVQ  R8, CX
	MOVL  $1, AX
	SHLL  CX, AX
	DECL  AX
	KMOVB AX, K1

loop:
	// Rows a…h.
	VMOVUPD.Z (SI), K1, Z0
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z1
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z2
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z3
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z4
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z5
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z6
	ADDQ      R10, SI
	VMOVUPD.Z (SI), K1, Z7
	ADDQ      R10, SI

	// Pairs of rows: even columns a0 b0 a2 b2 a4 b4 a6 b6, odd columns in the same way.
	VUNPCKLPD Z1, Z0, Z8
	VUNPCKHPD Z1, Z0, Z9
	VUNPCKLPD Z3, Z2, Z10
	VUNPCKHPD Z3, Z2, Z11
	VUNPCKLPD Z5, Z4, Z12
	VUNPCKHPD Z5, Z4, Z13
	VUNPCKLPD Z7, Z6, Z14
	VUNPCKHPD Z7, Z6, Z15

	// Fours of rows: columns 0 and 4, then 2 and 6; 1 and 5, 3 and 7.
	VSHUFF64X2 $0x88, Z10, Z8, Z0
	VSHUFF64X2 $0xdd, Z10, Z8, Z2
	VSHUFF64X2 $0x88, Z11, Z9, Z1
	VSHUFF64X2 $0xdd, Z11, Z9, Z3
	VSHUFF64X2 $0x88, Z14, Z12, Z4
	VSHUFF64X2 $0xdd, Z14, Z12, Z6
	VSHUFF64X2 $0x88, Z15, Z13, Z5
	VSHUFF64X2 $0xdd, Z15, Z13, Z7

	// All eight rows, for the columns that exist.
	MOVQ       DI, BX
	MOVQ       R8, CX
	VSHUFF64X2 $0x88, Z4, Z0, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0x88, Z5, Z1, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0x88, Z6, Z2, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0x88, Z7, Z3, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0xdd, Z4, Z0, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0xdd, Z5, Z1, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0xdd, Z6, Z2, Z8
	VMOVUPD    Z8, (BX)
	DECQ       CX
	JZ         next
	ADDQ       R9, BX
	VSHUFF64X2 $0xdd, Z7, Z3, Z8
	VMOVUPD    Z8, (BX)

next:
	ADDQ $64, DI
	DECQ DX
	JNZ  loop
	VZEROUPPER
	RET
