"""The CRI image service: images are the catalogue's; a pull finds one or says which there are."""

from __future__ import annotations

import os
from typing import Any

import grpc

from tests.cluster.cri import api_pb2 as pb
from tests.cluster.cri.images import UnknownImage
from tests.cluster.cri.messages import filesystem_usage, image_message
from tests.cluster.cri.node import Node


class ImageService:
    """Answers for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ListImages(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        catalogue = self._node.catalogue
        wanted = request.filter.image.image
        if not wanted:
            return pb.ListImagesResponse(images=[image_message(image) for image in catalogue.images.values()])
        try:
            return pb.ListImagesResponse(images=[image_message(catalogue.find(wanted))])
        except UnknownImage:
            return pb.ListImagesResponse()

    async def ImageStatus(self, request: pb.ImageStatusRequest, context: Any) -> pb.ImageStatusResponse:
        try:
            return pb.ImageStatusResponse(image=image_message(self._node.catalogue.find(request.image.image)))
        except UnknownImage:
            return pb.ImageStatusResponse()

    async def PullImage(self, request: pb.PullImageRequest, context: Any) -> pb.PullImageResponse:
        try:
            return pb.PullImageResponse(image_ref=self._node.catalogue.find(request.image.image).id)
        except UnknownImage as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            raise

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Any) -> pb.RemoveImageResponse:
        return pb.RemoveImageResponse()

    async def ImageFsInfo(self, request: pb.ImageFsInfoRequest, context: Any) -> pb.ImageFsInfoResponse:
        state = self._node.state
        system = os.statvfs(state)
        used = (system.f_blocks - system.f_bfree) * system.f_frsize
        usage = filesystem_usage(str(state), used, system.f_files - system.f_ffree)
        return pb.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])
